"""Rows of the table that `cargo xtask interop` writes."""


def row(check: str, measure: str, result: str):
    print(f"interop | {check} | {measure} | {result}", flush=True)
