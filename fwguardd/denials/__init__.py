"""Denials: netfilter's LOG lines in the kernel log, told as events.

The rooms in here turn lines into values and values into counts and words. They refuse to know how a line
arrives (`fwguardd.kernel.kmsg`) and where an event goes (`fwguardd.sinks`).
"""
