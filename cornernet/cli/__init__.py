"""The command ``cornernet``: one file and one row for each command.

command    a row of the table
dispatch   the table, ``main``, and exit statuses
start      what a configuration starts from: a recipe, a file, a run or weights
train, evaluate, detect, weights (convert, export), report, data (check, import, split, show), ablate
           the commands
runs       the folder runs/: the next run's name, and the run to resume
suggest    a configuration that suits a folder, with reasons
photos     from command-line arguments to photographs, and from detections to files
"""

from cornernet.cli.dispatch import main

__all__ = ["main"]
