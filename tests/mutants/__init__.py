"""`make mutants`: which deliberate changes of the source do the tests not notice? See docs/architecture.md."""
