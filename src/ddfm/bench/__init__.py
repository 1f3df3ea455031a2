"""Measuring fusion methods: plain baselines to stand beside, runs and tables."""
