"""The paper's tables as one command: train what is missing, generate, measure, and report, for any data set."""
