"""Denials: LOG lines of the kernel and packets that NFLOG rules copy, as structured events.

``sources`` opens the place that denials are read from. ``line_parser`` (with ``grammar``, ``layers`` and ``transport``)
makes a `model.Denial` of a line, ``packets`` (with ``headers``) of a copied packet. ``aggregation`` and ``scan`` decide
which of them are events and which are counted, ``fields`` and ``sentences`` describe them. ``pipeline`` connects all of
these; ``checkpoint`` keeps its place over a restart.
"""
