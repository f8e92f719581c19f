"""Programs that are no part of the installed package: the demo, the study, and single files."""
