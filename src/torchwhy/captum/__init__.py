"""Captum's names over the methods of torchwhy: change the import and keep the code.

    from torchwhy.captum.attr import IntegratedGradients  # was: from captum.attr import IntegratedGradients

It translates arguments and forms, and computes nothing: what each name stands for is in docs/captum.md, with a table of where
the numbers differ. What Captum has and torchwhy has not raises ``NotImplementedError``, saying what would do.
"""
