"""Speed, memory and size of a candidate: by the clock, or predicted for another machine."""
