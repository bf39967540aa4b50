"""Parts of `benchmarks/fuzz.py`: whole files of every kind that is read, ways to damage them, and a fair trial."""
