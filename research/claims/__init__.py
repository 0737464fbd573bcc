"""Seventeen claims about convolution and correlation, each reproduced or refuted by code.

The claims are those of the texts from which one learns the subject. A ruling says of each

    holds                       as it stands
    holds under a convention    which is named; under another, usual one it does not
    wrong as stated             with a counterexample, and with what is true instead

and shows the numbers. Integers, on which all operations are exact, settle whatever they can
(`sums`); photographs (`photographs`) and a network of Flax (`networks`) the rest. A function there
is one claim: its docstring is the claim, `check` states what must be true for the ruling, and
what it returns is the evidence.

    python -m research.claims --out docs      writes docs/claims.md and its figures
"""
