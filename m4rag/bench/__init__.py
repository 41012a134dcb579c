"""The benchmark: settings, runner, scoring, statistics, report."""
