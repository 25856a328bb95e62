"""What the directory would need at sizes that fit on no machine at hand: arithmetic, and simulation of hard moments.

`costs` has every measured figure, `deployment` what is deployed and the knobs as the code has them, `steady` the load
of an ordinary day, `comeback` and `departures` what happens when much happens at once, `limits` what breaks first,
`validation` what was measured of all that, `tables` and `page` docs/scale.md. Nothing here starts a process or knows
the time.
"""
