"""Encoders. Each is imported when a config names it, as the libraries behind them are large."""
