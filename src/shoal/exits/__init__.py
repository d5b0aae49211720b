"""Exits: a row leaves a net at the first exit that is sure enough of it.

    found = calibrate(net, data.valid, 0.5)                      half of the net's multiply-adds a row, on average
    fast = early(net, found.thresholds, found.temperatures)
    fast(x)                                                      as net(x), but most rows go through few layers

    sure of a row:  max softmax( answer / temperature ) >= threshold        0: every row leaves;  above 1: none does

Temperatures make what an exit says of itself true: each is the one under which the right classes are likeliest.
Thresholds let shares of the rows leave that fall or rise from exit to exit by one factor, the largest that the budget
allows; the first exits let none leave where more rows are right so. All is chosen on rows that did not train the net;
on them the budget is kept.

Papers   dynamic-perceiver-for-efficient-visual-recognition
"""

from shoal.exits.calibrating import Exiting, calibrate, exit_costs
from shoal.exits.leaving import NEVER, Early, early

__all__ = ["NEVER", "Early", "Exiting", "calibrate", "early", "exit_costs"]
