"""`gradcam-bench --help` and the help of each verb, in our own words."""

from __future__ import annotations

import textwrap

from gradcam_bench.cli.keys import all_keys

_INTRODUCTION = """\
gradcam-bench tells how well Grad-CAM and its kin localize objects and explain predictions,
for any network, layer and data set, beside controls, intervals and published numbers.

  gradcam-bench [key=value ...]              run a benchmark; run it again to go on after a stop
  gradcam-bench -m key=a,b [...]             run several and report them together
  gradcam-bench explain IMAGE|DIR ... [...]  lay maps over your own pictures
  gradcam-bench list WHAT                    models, layers, methods, metrics, datasets, protocols
  gradcam-bench status DIR ...               what is done, missing and failed, and the time left
  gradcam-bench report DIR ...               one page on one run or many
  gradcam-bench --version                    VERB --help tells more of a verb
"""

COMMANDS = """\
  gradcam-bench                                              a minute, nothing to download
  gradcam-bench explain photo.jpg model=efficientnet_lite0   overlays and the top five classes
  gradcam-bench experiment=sweep_layers model=tiny_vgg       every layer of a network
  gradcam-bench 'methods=[grad_cam,layer_cam,random]'        several methods in one pass
  gradcam-bench -m model=resnet18,resnet50 dataset=imagenette dataset.root=DIR
  gradcam-bench model=custom model.factory=package.module:function model.checkpoint=FILE
  gradcam-bench model=vgg16 dataset=imagenet dataset.root=DIR dataset.limit=1000
  gradcam-bench shard.index=0 shard.count=4                  one of four processes or machines
  gradcam-bench status results/shapes/tiny_resnet
  gradcam-bench report results/shapes/tiny_vgg results/shapes/tiny_resnet
"""

_ENDING = """\
Lists are quoted for the shell: 'layers=[layer3,layer4]'. What stands below model, dataset and
protocols is told by a file each: model.checkpoint=FILE, dataset.limit=100. Your own files go into
a folder conf beside your script: gradcam-bench --config-dir conf model=mine.
gradcam-bench --cfg job [key=value ...] shows the whole config of a run without running it.
"""

VERBS = {
    "explain": """\
usage: gradcam-bench explain IMAGE|DIR ... [key=value ...]

Lay the maps of a network over your own pictures and print its five likeliest classes.

  model=NAME          the network, as for a run (list models), with its own preprocessing
  class_idx=CLASS     a number or a part of a class's name; by default the predicted class
  methods=[NAME,...]  which maps (list methods); by default grad_cam
  layers=...          default, all, or module paths (list layers model=NAME)
  geometry=squash     the whole picture; center_crop: its middle, as in training
  device=auto         and precision=, as for a run
  output_dir=explained

Writes NAME.METHOD.LAYER.png for every picture, method and layer, and where there are several
contact_sheet.png. Of a folder its pictures are taken, not those of folders in it.
""",
    "list": """\
usage: gradcam-bench list models|layers|methods|metrics|datasets|protocols

One line each. The layers are those of a network: gradcam-bench list layers model=resnet50.
""",
    "report": """\
usage: gradcam-bench report DIR ... [--output FILE]

Make report.html of one or many stored runs, with tables/ beside it; of several also joined.csv,
paired.csv and their joint figures. DIR is the output_dir of a run. FILE is a folder or a .html; by
default the page goes into the folder of the run, or the one that holds all of them.
""",
    "status": """\
usage: gradcam-bench status DIR ... [workers=N]

Tell of stored runs which parts are done, missing or damaged, how many images failed, and how long
N workers will take for the rest, from the seconds that the stored parts took.
""",
}
"""The help of each verb."""


def whole_help() -> str:
    """Return the text of `gradcam-bench --help`."""
    lines = [_INTRODUCTION, "Ten commands\n", COMMANDS, "Keys, with their defaults\n"]
    for key in all_keys():
        short = len(key.values) < 40
        told = f"{key.values}: {key.text}" if short else f"{key.text}: {key.values}"
        head = f"  {key.name}={key.default}"
        lines += textwrap.wrap(
            told.removeprefix(": "),
            width=100,
            initial_indent=f"{head:<44}" if len(head) < 44 else f"{head}  ",
            subsequent_indent=" " * 44,
            break_on_hyphens=False,
        )
    return "\n".join([*lines, "", _ENDING])
