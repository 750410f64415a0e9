"""DVC remotes to test against: a folder, an OpenSSH server and an S3 server, each gone again at the end.

Servers listen on loopback alone, on a free port, with keys and settings of their own.
"""

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from projects import wait_for

#: Debian keeps it where only root looks.
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


@dataclass
class Folder:
    """A remote in a folder of this machine, whoever serves it."""

    path: Path
    #: What stands in the documentation, and what the tests have in its place.
    substitutes: Mapping[str, str]

    def put(self, md5: str, content: bytes) -> None:
        """Write an object, whatever it was before."""
        self.remove(md5)
        self._object(md5).write_bytes(content)

    def remove(self, md5: str) -> None:
        self._object(md5).unlink()

    def count(self) -> int:
        """How many objects are there whole."""
        return sum(path.is_file() and not path.name.startswith(".") for path in self.path.glob("files/md5/*/*"))

    def _object(self, md5: str) -> Path:
        return self.path / "files" / "md5" / md5[:2] / md5[2:]


@dataclass
class Bucket:
    """A remote in a bucket of an S3 server."""

    client: Any
    substitutes: Mapping[str, str]

    def put(self, md5: str, content: bytes) -> None:
        self.client.put_object(**self._object(md5), Body=content)

    def remove(self, md5: str) -> None:
        self.client.delete_object(**self._object(md5))

    def _object(self, md5: str) -> dict[str, str]:
        return {"Bucket": "my-bucket", "Key": f"phasescope/files/md5/{md5[:2]}/{md5[2:]}"}


@contextmanager
def folder(place: Path) -> Iterator[Folder]:
    yield Folder(place / "shared", {"/mnt/shared/phasescope": str(place / "shared")})


@contextmanager
def ssh(place: Path) -> Iterator[Folder]:
    """An OpenSSH server that lets in who runs the tests, by the key in the home `place / "home"`."""
    if SSHD is None or importlib.util.find_spec("dvc_ssh") is None:
        pytest.skip("needs sshd (Debian: openssh-server) and dvc-ssh")
    keys = place / "home" / ".ssh"
    keys.mkdir(parents=True)
    for key in (keys / "id_ed25519", place / "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    if os.geteuid() == 0:
        # A service manager makes it where sshd is a service.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    settings = place / "sshd_config"
    settings.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {place}/host\nPidFile none\n"
        f"AuthorizedKeysFile {keys}/id_ed25519.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    with serving([SSHD, "-D", "-e", "-f", str(settings)], port, place / "sshd.log"):
        yield Folder(
            place / "served",
            {
                "store.example.org:22/srv/phasescope": f"127.0.0.1:{port}{place}/served",
                "user ada": f"user {getpass.getuser()}",
            },
        )


@contextmanager
def s3(place: Path) -> Iterator[Bucket]:
    """An S3 server that keeps everything in memory, with one empty bucket."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("dvc_s3") is None:
        pytest.skip("needs moto[server] and dvc-s3")
    port = free_port()
    server = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with serving(server, port, place / "moto.log"):
        import boto3

        url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "tester", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(Bucket="my-bucket")
        yield Bucket(client, {"https://s3.example.org": url})
        client.close()


KINDS = {"folder": folder, "ssh": ssh, "s3": s3}


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the end of the block, from when it answers at its port."""
    with log.open("wb") as told:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
    try:
        wait_for(lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, log.read_text()
        yield
    finally:
        server.terminate()
        server.wait(timeout=60)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
