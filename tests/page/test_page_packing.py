"""The data in a page: compact, safe in a script element, and complete."""

import dataclasses
import json
import math

import page_models
import pytest

from mxcompile.page.content import Page
from mxcompile.page.packing import COARSEST, bins, coarser, columns_shown, pack, to_json

PAGE = page_models.page()


def test_every_text_is_stored_once() -> None:
    packed = pack(PAGE)
    assert len(packed["strings"]) == len(set(packed["strings"]))
    assert to_json(packed).count("/model/layers.1/mlp/up_proj/MatMul") == 1


def test_columns_that_equal_those_of_the_first_variant_are_left_out() -> None:
    first, second = pack(PAGE)["variants"]
    assert {"name", "op", "k", "sqnr_db"} <= set(first["nodes"])
    assert set(second["nodes"]) == {"weights", "activations"}


def test_mostly_empty_columns_say_where_they_are_not_empty() -> None:
    nodes = page_models.variant("a", "amxfp4", "amxfp4", others=40).nodes
    variants = (dataclasses.replace(PAGE.variants[0], nodes=nodes),)
    column = pack(dataclasses.replace(PAGE, variants=variants))["variants"][0]["nodes"]["k"]
    assert column["cells"] == [node.k for node in nodes if node.k is not None]
    assert column["at"] == [at for at, node in enumerate(nodes) if node.k is not None]


def test_grids_of_equal_levels_are_stored_once() -> None:
    assert pack(PAGE)["grids"] == [list(page_models.FP4)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_no_numbers_are_missing(value: float) -> None:
    node = dataclasses.replace(PAGE.variants[0].nodes[5], sqnr_db=value, energy_pj=value)
    variant = dataclasses.replace(PAGE.variants[0], nodes=(node,), histograms=())
    packed = pack(dataclasses.replace(PAGE, variants=(variant,)))
    assert packed["variants"][0]["nodes"]["sqnr_db"] == {"at": [], "cells": []}
    assert "NaN" not in to_json(packed)
    assert "Infinity" not in to_json(packed)


def test_data_cannot_end_its_element() -> None:
    text = to_json(pack(PAGE))
    assert "<" not in text
    assert page_models.HOSTILE in json.loads(text)["strings"]


def test_even_borders_are_stored_as_first_step_and_last() -> None:
    assert pack(PAGE)["variants"][0]["histograms"][0]["edges"] == {"first": -6.0, "step": 0.125, "last": 6.0}


def test_uneven_borders_are_stored_one_by_one() -> None:
    histogram = dataclasses.replace(PAGE.variants[0].histograms[0], edges=(0.0, 1.0, 3.0, 4.0), counts=(1, 2, 3))
    variant = dataclasses.replace(PAGE.variants[0], histograms=(histogram,))
    packed = pack(dataclasses.replace(PAGE, variants=(variant,)))
    assert packed["variants"][0]["histograms"][0]["edges"] == [0.0, 1.0, 3.0, 4.0]


def test_coarser_histograms_keep_all_elements() -> None:
    page = PAGE
    for expected in (48, 24, 12):
        page = coarser(page)
        assert bins(page) == expected
        for before, after in zip(PAGE.variants[0].histograms, page.variants[0].histograms, strict=True):
            assert sum(after.counts) == sum(before.counts)
            assert len(after.edges) == expected + 1
            assert (after.edges[0], after.edges[-1]) == (before.edges[0], before.edges[-1])
            assert after.level_counts == before.level_counts
    assert bins(page) == COARSEST
    assert coarser(page) is page


def test_coarser_histogram_of_an_odd_number_of_bins_ends_with_a_narrow_one() -> None:
    histogram = dataclasses.replace(
        PAGE.variants[0].histograms[0], edges=tuple(map(float, range(26))), counts=tuple(range(25))
    )
    page = dataclasses.replace(PAGE, variants=(dataclasses.replace(PAGE.variants[0], histograms=(histogram,)),))
    (after,) = coarser(page).variants[0].histograms
    assert after.counts == (*(4 * at + 1 for at in range(12)), 24)
    assert after.edges == (*map(float, range(0, 25, 2)), 25.0)
    assert pack(coarser(page))["variants"][0]["histograms"][0]["edges"] == {"first": 0.0, "step": 2.0, "last": 25.0}


def test_columns_shown_are_those_that_have_figures() -> None:
    assert columns_shown(PAGE.variants) == ("block", "k", "n", "bits", "sqnr_db", "kl", "energy_pj", "macs")
    nodes = (page_models.other("a", "Add", None),)
    assert columns_shown((dataclasses.replace(PAGE.variants[0], nodes=nodes),)) == ("energy_pj",)


def test_page_without_variants_packs_its_points() -> None:
    packed = pack(Page("t", "l", {}, (), {}, {}, (), page_models.points()))
    assert packed["variants"] == []
    assert packed["points"][1] == dataclasses.asdict(page_models.points()[1])
