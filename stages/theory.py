"""Stage `theory`: models of learning that are solved, beside the networks that are trained."""

from phasescope import provenance, stage
from phasescope.params.theory import TheorySettings
from phasescope.solve import feature_strength, linear_network
from phasescope.store.run import write_theory


def main() -> None:
    """Write theory/feature-strength and theory/linear-network."""
    settings = stage.settings("theory.json", TheorySettings)
    provenance.write("theory")
    first, second = settings.feature_strength, settings.linear_network
    write_theory(stage.THEORY / "feature-strength", feature_strength(first), first.model_dump())
    write_theory(stage.THEORY / "linear-network", linear_network(second), second.model_dump())


if __name__ == "__main__":
    stage.run(main)
