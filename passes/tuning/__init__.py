"""Which of several equal graphs and session options is fastest, decided by the clock."""
