"""Commands, one a file: SUMMARY, configure(parser), execute(args) -> exit code.

Modules here import nothing heavy at their top; help must answer at once.
"""
