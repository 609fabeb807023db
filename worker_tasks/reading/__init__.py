"""What is read out of a result: its columns in figures, its rows in another order, files, and how two runs differ."""
