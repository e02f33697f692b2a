"""Places of nodes: nothing overlaps, nothing moves, lines go where they should."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.explaining.drawing import draw, step_axis
from dynamics.explaining.layout import Box, ChartLayout, curve, label_spots, lay_out, place_labels
from dynamics.explaining.schema import Node, check_explanation
from tests.explaining import made


def head(layer: int, number: int, position: int) -> Node:
    return Node(id=f"L{layer}H{number}@{position}", kind="head", layer=layer, head=number, position=position)


def mlp(layer: int, position: int) -> Node:
    return Node(id=f"MLP{layer}@{position}", kind="mlp", layer=layer, position=position)


def embed(position: int) -> Node:
    return Node(id=f"embed@{position}", kind="embed", position=position)


def logits(position: int) -> Node:
    return Node(id=f"logits@{position}", kind="logits", position=position)


def laid_out(
    nodes: list[Node], *, layers: int = 6, positions: int = 5, parallel: bool = True, token: float = 20
) -> ChartLayout:
    return lay_out(nodes, layers, [token] * positions, parallel=parallel, target_width=700, target_height=600)


def any_nodes() -> st.SearchStrategy[list[Node]]:
    position = st.integers(0, 4)
    one = st.one_of(
        st.builds(head, st.integers(0, 5), st.integers(0, 15), position),
        st.builds(mlp, st.integers(0, 5), position),
        st.builds(embed, position),
        st.just(logits(4)),
    )
    return st.lists(one, max_size=120, unique_by=lambda node: node.id)


@settings(max_examples=60, deadline=None)
@given(any_nodes(), st.booleans(), st.sampled_from([5.0, 30.0, 90.0]))
def test_no_two_nodes_overlap_and_all_are_inside(nodes: list[Node], parallel: bool, token: float) -> None:
    layout = laid_out(nodes, parallel=parallel, token=token)
    for a, b in combinations(layout.boxes, 2):
        assert not a.overlaps(b)
    for box in layout.boxes:
        assert box.x - box.width / 2 > 0 and box.x + box.width / 2 < layout.width
        assert box.y - box.height / 2 > 0 and box.y + box.height / 2 < layout.token_y < layout.height


@settings(max_examples=60, deadline=None)
@given(any_nodes(), st.booleans())
def test_later_nodes_lie_higher_and_later_positions_to_the_right(nodes: list[Node], parallel: bool) -> None:
    layout = laid_out(nodes, parallel=parallel)
    for (a, at), (b, bt) in combinations(zip(nodes, layout.boxes, strict=True), 2):
        low, high = (a.depth, b.depth) if not parallel else (a.depth[:1], b.depth[:1])
        if low < high:
            assert at.y > bt.y
        if a.position < b.position:
            assert at.x < bt.x


@settings(max_examples=40, deadline=None)
@given(any_nodes(), st.randoms(use_true_random=False))
def test_places_do_not_depend_on_the_order_of_the_nodes(nodes: list[Node], rng: random.Random) -> None:
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    first = dict(zip((n.id for n in nodes), laid_out(nodes).boxes, strict=True))
    assert dict(zip((n.id for n in shuffled), laid_out(shuffled).boxes, strict=True)) == first


def test_layers_that_keep_nothing_take_no_room() -> None:
    ends = [head(0, 0, 0), head(5, 0, 4), logits(4)]
    sparse, dense = laid_out(ends), laid_out([*ends, *(head(layer, 0, 0) for layer in range(1, 5))])
    assert [row.layer for row in sparse.rows] == [5, 0]
    assert [(gap.first, gap.last) for gap in sparse.gaps] == [(1, 4)]
    assert sparse.height < dense.height and not dense.gaps
    (top,) = laid_out([head(0, 0, 0), logits(4)]).gaps
    assert (top.first, top.last) == (1, 5)
    assert laid_out([head(0, 0, 0)]).boxes[0].y > top.y


def test_a_crowded_column_is_widened_and_an_empty_one_is_not() -> None:
    layout = laid_out([head(2, number, 4) for number in range(12)] + [head(2, 0, 1)])
    widths = [column.width for column in layout.columns]
    assert widths[4] > 2 * widths[1] > widths[0]
    assert layout.width <= 700
    assert len({box.y for box in layout.boxes[:12]}) < 6


def test_long_tokens_stand_at_an_angle_and_short_ones_lie_flat() -> None:
    assert not laid_out([embed(0)], token=20).slanted
    assert laid_out([embed(0)], token=200).slanted
    assert laid_out([embed(0)], token=200).height > laid_out([embed(0)], token=20).height + 100


@pytest.mark.parametrize("port", ["q", "k", "v", "in"])
def test_a_line_begins_above_its_source_and_ends_below_its_target(port: str) -> None:
    source, target = Box(100, 300, 34, 19), Box(400, 100, 34, 19)
    line = curve(source, target, port)
    assert line.at(0) == (100, 300 - 9.5)
    x, y = line.at(1)
    assert y == 100 + 9.5 and abs(x - 400) < 17
    assert line.path.startswith("M100 290.5C")


def test_queries_keys_and_values_enter_a_head_from_left_to_right() -> None:
    source, target = Box(100, 300, 34, 19), Box(400, 100, 34, 19)
    ends = [curve(source, target, port).at(1)[0] for port in ("q", "k", "v")]
    assert ends == sorted(ends) and len(set(ends)) == 3


def test_a_line_swings_around_a_box_that_lies_in_its_way() -> None:
    source, between, target = Box(200, 300, 34, 19), Box(200, 200, 34, 19), Box(200, 100, 34, 19)
    straight = curve(source, target, "in")
    around = curve(source, target, "in", [between], within=700)

    def meets(line: object) -> bool:
        return any(between.holds(*line.at(i / 50)) for i in range(51))  # type: ignore[attr-defined]

    assert meets(straight) and not meets(around)
    elsewhere = Box(200, 400, 34, 19)
    assert curve(source, target, "in", [elsewhere]) == straight


def test_a_line_at_the_side_swings_inward() -> None:
    source, between, target = Box(70, 300, 34, 19), Box(70, 200, 34, 19), Box(70, 100, 34, 19)
    assert curve(source, target, "in", [between], within=700).at(0.5)[0] > 70
    source, between, target = Box(670, 300, 34, 19), Box(670, 200, 34, 19), Box(670, 100, 34, 19)
    assert curve(source, target, "in", [between], within=700).at(0.5)[0] < 670


def test_labels_cover_neither_nodes_nor_each_other() -> None:
    source, middle, target = Box(200, 400, 34, 19), Box(250, 250, 60, 40), Box(300, 100, 34, 19)
    line = curve(source, target, "in")
    spots = label_spots(line, [source, middle, target], within=700)
    assert spots and not any(spot.overlaps(box) for spot in spots for box in (source, middle, target))
    assert label_spots(line, [Box(250, 250, 500, 500)]) == ()
    placed = place_labels([(7, spots), (8, spots), (9, spots[:1])], most=9)
    assert [edge for edge, _ in placed][:2] == [7, 8]
    assert all(not a.overlaps(b) for (_, a), (_, b) in combinations(placed, 2))
    assert len(place_labels([(i, [Box(60 * i, 0, 42, 13)]) for i in range(30)], most=5)) == 5


@pytest.mark.parametrize("size", [made.organism_sized, made.pythia_sized])
def test_a_drawing_holds_every_edge_and_its_strongest_are_labelled(size: object) -> None:
    explanation = check_explanation(size())  # type: ignore[operator]
    drawing = draw(explanation)
    assert drawing == draw(explanation)
    for a, b in combinations(drawing.layout.boxes, 2):
        assert not a.overlaps(b)
    for checkpoint, scores, labels in zip(explanation.checkpoints, drawing.scores, drawing.labels, strict=True):
        found = {(drawing.edges[i].source, drawing.edges[i].target, drawing.edges[i].port): s for i, s in scores}
        assert found == {(s, t, p): score for s, t, p, score in checkpoint.edges}
        sizes = [abs(score) for _, score in scores]
        assert sizes == sorted(sizes)
        assert {label.edge for label in labels} <= {i for i, _ in scores}
        assert len(labels) >= min(len(scores), 4)


def test_the_step_axis_has_a_place_for_zero_and_is_logarithmic_above_one() -> None:
    axis = step_axis([0, 1, 10, 100, 1000])
    zero, one, ten, hundred, thousand = axis.positions
    assert zero == 0 and thousand == 1
    assert ten - one == pytest.approx(hundred - ten) == pytest.approx(thousand - hundred)
    assert [text for _, text in axis.ticks] == ["0", "1", "10", "100", "1000"]
    assert step_axis([7]).positions == (0.0,)
    assert [text for _, text in step_axis([2000, 3000]).ticks] == ["2000", "3000"]


@settings(max_examples=40, deadline=None)
@given(
    any_nodes(), st.integers(0, 6), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, unique=True)
)
def test_features_lie_in_a_strip_between_two_layers(nodes: list[Node], after: int, some: list[tuple[int, int]]) -> None:
    features = [Node(id=f"F{n}@{p}", kind="feature", position=p, feature=n) for p, n in some]
    features.append(Node(id="error@0", kind="error", position=0))
    every = [*nodes, *features]
    layout = lay_out(every, 6, [20] * 5, parallel=True, target_width=700, target_height=600, after=after)
    assert layout.strip is not None
    top, bottom = layout.strip
    for a, b in combinations(layout.boxes, 2):
        assert not a.overlaps(b)
    for node, box in zip(every, layout.boxes, strict=True):
        if node.in_dictionary:
            assert top <= box.y - box.height / 2 and box.y + box.height / 2 <= bottom
        elif node.kind == "logits" or (node.layer is not None and node.layer >= after):
            assert box.y + box.height / 2 < top
        else:
            assert box.y - box.height / 2 > bottom
    for gap in layout.gaps:
        assert gap.last < after or gap.first >= after
    columns = {c.position: c for c in layout.columns}
    for node, box in zip(every, layout.boxes, strict=True):
        assert abs(box.x - columns[node.position].x) <= columns[node.position].width / 2
