"""One recipe a task. Nothing imports these modules but the command line."""
