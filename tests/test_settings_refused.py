"""Settings that make no sense are refused when a method is made, before any data is there; the message names the setting."""

import re

import pytest
import torch
from torch import nn

import torchwhy as tw

NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())

REFUSED = [
    # gradient
    (tw.Saliency, {"channels": "mean"}, "channels='mean'"),
    (tw.Saliency, {"signed": "false"}, "signed='false'"),
    (tw.SmoothGrad, {"n_samples": 0}, "n_samples=0"),
    (tw.SmoothGrad, {"noise_level": -0.1}, "noise_level=-0.1"),
    (tw.SmoothGrad, {"stdevs": -1.0}, "stdevs=-1.0: a standard deviation cannot be negative"),
    (tw.SmoothGrad, {"stdevs": (0.1, -1.0)}, "stdevs=(0.1, -1.0)"),
    (tw.SmoothGrad, {"of": tw.Saliency(NET), "layer": "0"}, "layer: give it to the method in of="),
    (tw.IntegratedGradients, {"method": "simpson"}, "method='simpson'"),
    (tw.IntegratedGradients, {"method": "riemann_trapezoid", "n_steps": 1}, "n_steps=1: expected an int of at least 2"),
    (tw.IntegratedGradients, {"tolerance": 0.0}, "tolerance=0.0"),
    (tw.IntegratedGradients, {"max_steps": 1}, "max_steps=1: expected an int of at least 2"),
    (tw.InternalInfluence, {"layer": "0", "method": "riemann_trapezoid", "n_steps": 1}, "n_steps=1"),
    (tw.GradientSHAP, {"stdevs": -0.1}, "stdevs=-0.1"),
    (tw.BlurIG, {"max_sigma": 0}, "max_sigma=0"),
    (tw.BlurIG, {"spacing": "log"}, "spacing='log'"),
    (tw.GuidedIG, {"n_steps": 7, "anchors": 2}, "n_steps=7: expected a multiple of anchors + 1 = 3"),
    (tw.GuidedIG, {"anchors": -1}, "anchors=-1"),
    (tw.GuidedIG, {"fraction": 0.0}, "fraction=0.0"),
    (tw.GuidedIG, {"max_dist": 1.5}, "max_dist=1.5"),
    (tw.IDGI, {"of": tw.Saliency(NET)}, "of="),
    (tw.LayerActivation, {}, "give layer="),
    # cam
    (tw.GradCAM, {"layer": ["0", "1"], "upsample": False}, "upsample=False"),
    (tw.GradCAM, {"reshape": 3}, "reshape=3"),
    (tw.SmoothGradCAMPlusPlus, {"numerator": "third"}, "numerator='third'"),
    (tw.SmoothGradCAMPlusPlus, {"noise_level": -1.0}, "noise_level=-1.0"),
    (tw.SmoothGradCAMPlusPlus, {"stdevs": -1.0}, "stdevs=-1.0"),
    (tw.KPCACAM, {"kernel": "cosine"}, "kernel='cosine'"),
    (tw.KPCACAM, {"gamma": 0.0}, "gamma=0.0"),
    (tw.KPCACAM, {"degree": -1.0}, "degree=-1.0"),
    (tw.ScoreCAM, {"max_channels": 0}, "max_channels=0"),
    (tw.AblationCAM, {"max_channels": 0}, "max_channels=0"),
    (tw.SSCAM, {"where": "both"}, "where='both'"),
    (tw.SSCAM, {"stdev": -1.0}, "stdev=-1.0"),
    (tw.ISCAM, {"n_steps": 0}, "n_steps=0"),
    (tw.OptiCAM, {"lr": 0.0}, "lr=0.0"),
    (tw.FinerCAM, {"of": tw.EigenCAM(NET)}, "of=EigenCAM"),
    (tw.FinerCAM, {"references": []}, "references=[]"),
    (tw.FinerCAM, {"references": [1, -1]}, "references=[1, -1]"),
    (tw.FinerCAM, {"weighting": "none"}, "weighting='none'"),
    (tw.FullGrad, {"layer": "0"}, "layer: FullGrad adds up all layers"),
    # perturbation
    (tw.Occlusion, {"sliding_window_shapes": 2.5}, "sliding_window_shapes=2.5"),
    (tw.Occlusion, {"sliding_window_shapes": (3, 0, 4)}, "sliding_window_shapes=(3, 0, 4)"),
    (tw.Occlusion, {"sliding_window_shapes": None}, "sliding_window_shapes=None"),
    (tw.Occlusion, {"sliding_window_shapes": 2, "strides": 0}, "strides=0"),
    (tw.Occlusion, {"sliding_window_shapes": ((2,), (2,)), "strides": ((1,), (True,))}, "strides=(True,)"),
    (tw.RISE, {"grid": 0}, "grid=0"),
    (tw.RISE, {"keep_probability": 1.0}, "keep_probability=1.0"),
    (tw.RISE, {"targets": "some"}, "targets='some'"),
    (tw.RISE, {"max_evaluations": 10}, "max_evaluations: bounds"),
    (tw.LIME, {"n_samples": 2}, "n_samples=2: expected an int of at least 3"),
    (tw.LIME, {"distance": "far"}, "distance='far'"),
    (tw.LIME, {"kernel_width": 0.0}, "kernel_width=0.0"),
    (tw.LIME, {"keep_probability": 0.0}, "keep_probability=0.0"),
    (tw.LIME, {"regularizer": "none"}, "regularizer='none'"),
    (tw.LIME, {"alpha": -1.0}, "alpha=-1.0"),
    (tw.LIME, {"n_features": 0}, "n_features=0"),
    (tw.LIME, {"n_segments": 0}, "n_segments=0"),
    (tw.LIME, {"regularizer": 3}, "regularizer=3: expected 'ridge', 'lasso' or a linear scikit-learn regressor"),
    (tw.LIME, {"coalitions": torch.ones(5, 2), "n_samples": 9}, "coalitions: they are the samples"),
    (tw.LIME, {"coalitions": torch.ones(5)}, "coalitions: expected a tensor"),
    (tw.LIME, {"coalitions": torch.full((5, 2), 0.5)}, "coalitions: expected true and false"),
    (tw.FeaturePermutation, {"n_repeats": 0}, "n_repeats=0"),
    (tw.ExtremalPerturbation, {"areas": ()}, "areas=()"),
    (tw.ExtremalPerturbation, {"areas": (0.1, 1.0)}, "areas=(0.1, 1.0)"),
    (tw.ExtremalPerturbation, {"reward": "keep"}, "reward='keep'"),
    (tw.ExtremalPerturbation, {"step": 0}, "step=0"),
    (tw.ExtremalPerturbation, {"sigma": 0.0}, "sigma=0.0"),
    (tw.ExtremalPerturbation, {"area_weight": 0.0}, "area_weight=0.0"),
    (tw.ExtremalPerturbation, {"max_blur": 0.0}, "max_blur=0.0"),
    # shapley
    (tw.KernelSHAP, {"tolerance": 0}, "tolerance=0"),
    (tw.LinearSHAP, {"rtol": -1.0}, "rtol=-1.0"),
    (tw.OwenValues, {"groups": [0, 0, 2]}, "groups: number them 0, 1, 2, ... without gaps"),
    (
        tw.OwenValues,
        {"groups": [0.0, 1.0]},
        "groups=[0.0, 1.0]: expected for each feature the number or the name of its group",
    ),
    (tw.OwenValues, {"groups": torch.zeros(2, 2, dtype=torch.long)}, "groups="),
    (tw.OwenValues, {"groups": []}, "groups=[]"),
    # attention
    (tw.AttentionRollout, {"head_fusion": "sum"}, "head_fusion='sum'"),
    (tw.AttentionFlow, {"head_fusion": "sum"}, "head_fusion='sum'"),
    (tw.AttentionRollout, {"discard_ratio": 1}, "discard_ratio=1"),
    (tw.AttentionRollout, {"layer": "0"}, "layer: attention methods choose"),
    (tw.AttentionRollout, {"layers": []}, "layers=[]"),
    (tw.RawAttention, {"heads": ["a"]}, "heads=['a']"),
    (tw.RawAttention, {"layers": iter([0])}, "layers="),
    (tw.AttentionRelevance, {"token": 1.5}, "token=1.5"),
    (tw.AttentionRelevance, {"grid": (0, 4)}, "grid=(0, 4)"),
    (tw.ALTI, {"heads": 0}, "heads: the heads of ALTI are one vector"),
]


NAMES = [f"{method.__name__}-{'-'.join(settings) or 'none'}" for method, settings, _ in REFUSED]


@pytest.mark.parametrize(("method", "settings", "message"), REFUSED, ids=NAMES)
def test_a_method_is_not_made_with_it(method, settings, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        method(NET, **settings)
