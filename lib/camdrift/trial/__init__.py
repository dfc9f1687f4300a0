"""The detectors' trial: who takes part, what is measured, the adaptive attack, the evaluation."""
