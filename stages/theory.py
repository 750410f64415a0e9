"""Stage `theory`: models of learning that are solved, beside the networks that are trained."""

from phasescope import provenance, stage
from phasescope.params.theory import TheorySettings
from phasescope.solve import feature_strength
from phasescope.store.run import write_theory


def main() -> None:
    """Write theory/feature-strength."""
    settings = stage.settings("theory.json", TheorySettings).feature_strength
    provenance.write("theory")
    write_theory(stage.THEORY / "feature-strength", feature_strength(settings), settings.model_dump())


if __name__ == "__main__":
    stage.run(main)
