"""Mutants made from the syntax tree, by the thousand, for `refbert conform --self-test generated`.

operators    every first-order mutant of a module, in the order of its text
reach        which of the contract's methods a piece of code is part of
packages     what is mutated, and from which backend's side it is seen
equivalent   the mutants that compute the same, with reasons (equivalent.txt)
trial        each on trial, in a process of its own
page         docs/generated-mutants.md
"""
