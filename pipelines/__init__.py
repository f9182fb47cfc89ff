"""One module per task. Only the command line imports these modules."""
