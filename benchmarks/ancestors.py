"""How near drawn ancestors come to true ones, which a simulated clade knows: their trait error, by how they are drawn.

`python -m benchmarks.ancestors --model RUN --clade CLADE --out DIR`, for a model that learned species of the clade. Of
every order, family and genus with two or more taxa that the model knows, pictures of the ancestor are drawn

* brownian: as `taxadiffusion ancestors` does, each of a draw from the posterior of Brownian motion
* dated: as `taxadiffusion ancestors --tree` does, by the clade's own tree with its branch lengths
* brownian_mean: as `taxadiffusion ancestors --mean` does, all of the posterior's mean
* naive_mean: under the mean of the descendants' conditions, each with the same weight
* own_name: under the taxon's own condition, which the model learned from its descendants' pictures

and their traits, read off by the clade's instrument, compared with those of the true last common ancestor. Beside them
stand pictures that the simulator draws of the true ancestor (true_ancestor: the instrument's own error, as low as it
gets) and of the others (other_true_ancestors), the brownian pictures of the others (other_brownian), and, without any
picture, what the true traits of the same species tell of their ancestor's (species_mean; species_brownian; by the
clade's own tree species_dated): of this clade, and of twenty clades of as many species, over which the second table has
its intervals.
DIR keeps the pictures, `ancestors.json` and a sheet, `ancestors.png`; the same command goes on.
"""

# Letters: K ancestors, N pictures of each, M measurands, S species below an ancestor.
from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.budget import software
from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.base.device import chosen_device
from taxadiffusion.errors import DataError
from taxadiffusion.guidance import Guidance
from taxadiffusion.images import image_grid
from taxadiffusion.images.fit import load_image
from taxadiffusion.metrics.intervals import difference_of_means, mean_of_means
from taxadiffusion.metrics.traits import trait_errors
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.pictures.ancestors import cloud, descent_of
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.request import Request
from taxadiffusion.simulate import (
    Clade,
    TraitMeter,
    ancestor_truth,
    legible,
    photograph,
    read_clade,
    species_spread,
    taxon_truth,
)
from taxadiffusion.taxonomy.brownian import posterior, unit_descent
from taxadiffusion.taxonomy.phylogeny import Phylogeny, placed, read_phylogeny

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]

SIZE_PX = 64  # the instrument's
SHOWN = 2  # pictures of each kind in a row of the sheet
NUM_CLADES = 20


Way = Callable[[Adapter, Lineage, Sequence[int], Guidance], list[Request]]


def ways(tree: Phylogeny) -> dict[str, Way]:
    """tree: the clade's own."""

    def naive_mean(adapter: Adapter, ancestor: Lineage, seeds: Sequence[int], guidance: Guidance) -> list[Request]:
        tips = descent_of(adapter, ancestor)[0].tips
        blend = tuple((tip, 1 / len(tips)) for tip in tips)
        return [Request(ancestor, seed, guidance, blend=blend) for seed in seeds]

    return {
        "brownian": lambda *asked: cloud(*asked)[0],
        "dated": lambda *asked: cloud(*asked, phylogeny=tree)[0],
        "brownian_mean": lambda *asked: cloud(*asked, mean=True)[0],
        "naive_mean": naive_mean,
        "own_name": lambda _, ancestor, seeds, guidance: [Request(ancestor, seed, guidance) for seed in seeds],
    }


@dataclass(frozen=True)
class Judge:
    """The true ancestors of a clade and the instrument that reads traits off pictures."""

    nodes: Mapping[Lineage, int]
    truth: Mapping[Lineage, Floats]  # (M,) of each ancestor
    spread: Floats  # (M,) between species
    columns: Sequence[int]

    @classmethod
    def of(cls, clade: Clade, meter: TraitMeter, known: Container[Lineage]) -> Judge:
        """known: the species whose ancestors are looked at. Raises `DataError` where they have none in common."""
        spread, nodes = species_spread(clade), clade.ancestors(known)
        if len(nodes) < 2:
            raise DataError("the model knows fewer than two ancestors of the clade: give one that learned its species")
        return cls(nodes, ancestor_truth(clade, known), spread, legible(meter, spread))

    def error(self, readings: Floats, ancestor: Lineage) -> float:
        """Of the mean of readings (N, M) against the ancestor's true traits, in standard deviations between species."""
        rows = {ancestor: range(len(readings))}
        return float(trait_errors(readings, rows, self.truth, self.spread, self.columns).mean())

    def own(self, readings: Mapping[Lineage, Floats]) -> Floats:
        """(K,) errors of each ancestor's own pictures."""
        return np.array([self.error(readings[ancestor], ancestor) for ancestor in self.truth])

    def of_others(self, readings: Mapping[Lineage, Floats]) -> Floats:
        """(K,) errors that the pictures of another ancestor have on average, each other one as likely."""
        return np.array(
            [
                np.mean([self.error(readings[other], ancestor) for other in self.truth if other != ancestor])
                for ancestor in self.truth
            ]
        )


def simulated(clade: Clade, node: int, number: int) -> Images:
    """Pictures (N, 3, 64, 64) of a true ancestor, posed and lit as those of the species are."""
    mine = len(clade) + node  # no species' number: no picture shares its pose and light with one of a species
    return np.stack([photograph(clade.node_traits[node], clade.seed, mine, i, SIZE_PX)[1] for i in range(number)])


def drawn(
    adapter: Adapter,
    ancestors: Sequence[Lineage],
    tree: Phylogeny,
    out: Path,
    number: int,
    guidance: Guidance,
    sampling: Sampling,
) -> dict[str, dict[Lineage, Images]]:
    """Pictures (N, 3, 64, 64) of each ancestor by each way; what lies in `out` is not drawn again."""
    found: dict[str, dict[Lineage, Images]] = {}
    for name, way in ways(tree).items():
        requests = [r for ancestor in ancestors for r in way(adapter, ancestor, range(number), guidance)]
        pictures: dict[Lineage, list[Images]] = {ancestor: [] for ancestor in ancestors}
        made = generate(adapter, requests, out / name, sampling)
        of_request = {one.request: one.path for one in track(made, name, total=len(requests))}
        for request in requests:
            pictures[request.lineage].append(load_image(of_request[request], SIZE_PX))
        found[name] = {ancestor: np.stack(some) for ancestor, some in pictures.items()}
    return found


def of_species(
    clade: Clade, tree: Phylogeny, ancestors: Sequence[Lineage], known: Sequence[Lineage]
) -> dict[str, dict[Lineage, Floats]]:
    """What the true traits of the known species tell of each ancestor's, (1, M): their mean, and by Brownian motion on
    the tree of unit branches and on the clade's own."""
    species = taxon_truth(clade, "species")
    kinds = ("species_mean", "species_brownian", "species_dated")
    found: dict[str, dict[Lineage, Floats]] = {kind: {} for kind in kinds}
    for ancestor in ancestors:
        descent = unit_descent(ancestor, known, clade.ranks)
        values = np.stack([species[tip] for tip in descent.tips])  # (S, M)
        found["species_mean"][ancestor] = values.mean(axis=0, keepdims=True)
        found["species_brownian"][ancestor] = posterior(descent).weights[None] @ values
        dated = placed(ancestor, known, tree).descent
        own = np.stack([species[tip] for tip in dated.tips])
        found["species_dated"][ancestor] = posterior(dated).weights[None] @ own
    return found


def tree_of(clade: Clade) -> Phylogeny:
    """The clade's own tree, by way of the file that `simulate` writes of it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tree.nwk"
        file.write_text(clade.newick() + "\n", encoding="utf-8")
        return read_phylogeny(file)


def of_clades(meter: TraitMeter, num_species: int, ranks: Sequence[Rank]) -> dict[str, Any]:
    """What the true traits of all species tell of their ancestors', with intervals over clades; nothing is drawn.

    The errors of the other true ancestors stand beside it.
    """
    means: dict[str, list[float]] = defaultdict(list)
    for seed in range(NUM_CLADES):
        clade = Clade.grow(seed, num_species, ranks)
        judge = Judge.of(clade, meter, clade.species)
        told = of_species(clade, tree_of(clade), list(judge.nodes), clade.species)
        errors = {kind: judge.own(some) for kind, some in told.items()}
        errors["other_true_ancestors"] = judge.of_others({one: truth[None] for one, truth in judge.truth.items()})
        for kind, values in errors.items():
            means[kind].append(float(values.mean()))
    return table({kind: np.array(some) for kind, some in means.items()}, ["all"] * NUM_CLADES, 1, "species_brownian")


def table(errors: Mapping[str, Floats], ranks: Sequence[str], number: int, compared: str) -> dict[str, Any]:
    """Kind → rank, or "all" → trait error and how much larger it is than that of the compared kind.

    errors: (K,) of each ancestor, or of each clade; ranks: (K,); number: of pictures of each.
    """
    found: dict[str, Any] = {}
    for kind, values in errors.items():
        found[kind] = {}
        for rank in dict.fromkeys(("all", *ranks)):
            rows = [row for row, own in enumerate(ranks) if rank in ("all", own)]
            means, others, images = values[rows, None], errors[compared][rows, None], number * len(rows)
            above = difference_of_means(means, others, images, images).to_json()
            found[kind][rank] = {
                "number": len(rows),
                "trait_error": mean_of_means(means, images).to_json(),
                f"above_{compared}": above if kind != compared else None,
            }
    return found


def measure(
    adapter: Adapter, clade: Clade, meter: TraitMeter, out: Path, number: int, guidance: Guidance, sampling: Sampling
) -> dict[str, Any]:
    """Pictures of every kind drawn, read and compared, and the sheet. Raises `DataError` for a model of others."""
    if adapter.card.ranks != clade.ranks:
        raise DataError(f"the model knows {', '.join(adapter.card.ranks)}, the clade has {', '.join(clade.ranks)}")
    known = [adapter.taxonomy.lineage(taxon) for taxon in adapter.taxonomy.at_rank("species")]
    judge = Judge.of(clade, meter, known)
    ancestors, tree = list(judge.nodes), tree_of(clade)
    pictures = {"true_ancestor": {one: simulated(clade, node, number) for one, node in judge.nodes.items()}}
    pictures |= drawn(adapter, ancestors, tree, out, number, guidance, sampling)
    readings = {
        kind: {ancestor: meter.read(images) for ancestor, images in some.items()} for kind, some in pictures.items()
    }
    errors = {kind: judge.own(some) for kind, some in readings.items()}
    errors["other_true_ancestors"] = judge.of_others(readings["true_ancestor"])
    errors["other_brownian"] = judge.of_others(readings["brownian"])
    errors |= {kind: judge.own(some) for kind, some in of_species(clade, tree, ancestors, known).items()}
    sheet(pictures, ancestors).save(out / "ancestors.png")
    by_ancestor = {
        str(ancestor): {kind: float(values[row]) for kind, values in errors.items()}
        for row, ancestor in enumerate(ancestors)
    }
    ranks = [str(ancestor.rank) for ancestor in ancestors]
    return {"table1": table(errors, ranks, number, "brownian"), "trait_errors": by_ancestor}


def sheet(pictures: Mapping[str, Mapping[Lineage, Images]], ancestors: Sequence[Lineage]) -> Any:
    """A row for each ancestor: pictures of every kind, side by side."""
    shown = [
        (image, f"{ancestor.label} {kind}".replace("_", " "))
        for ancestor in ancestors
        for kind, some in pictures.items()
        for image in some[ancestor][:SHOWN]
    ]
    columns = sum(min(SHOWN, len(some[ancestors[0]])) for some in pictures.values())
    return image_grid([image for image, _ in shown], columns, [words for _, words in shown], cell_px=2 * SIZE_PX)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ancestors", description=__doc__)
    parser.add_argument("--model", required=True, help="what learned the clade: a run or a model's directory")
    parser.add_argument("--clade", type=Path, required=True, help="the folder that `taxadiffusion simulate` wrote")
    parser.add_argument("--out", type=Path, required=True, help="where pictures and figures are kept")
    parser.add_argument("-n", "--num-images", type=int, default=16, help="pictures of each ancestor, by each way")
    parser.add_argument("--guidance-scale", type=float, default=2.0, help="more overdraws traits")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--base")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    adapter = open_model(options.model, base=options.base, device=chosen_device(options.device))
    guidance, sampling = Guidance(options.guidance_scale), Sampling(options.steps, options.batch_size)
    options.out.mkdir(parents=True, exist_ok=True)
    clade = read_clade(options.clade)
    meter = TraitMeter.calibrated()
    found = measure(adapter, clade, meter, options.out, options.num_images, guidance, sampling)
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.ancestors", *sys.argv[1:]]),
        "versions": software(),
        "clade": {"seed": clade.seed, "num_species": len(clade), "ranks": clade.ranks},
        "model": adapter.card.content_hash,
        "pictures_of_each": options.num_images,
        "experiments": {
            "ancestors": found,
            "clades": {"table1": of_clades(meter, len(clade), clade.ranks)},
        },
    }
    (options.out / "ancestors.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["table1"], indent=1))


if __name__ == "__main__":
    main()
