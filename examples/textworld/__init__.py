"""TextWorld: what a value memory of a random player's episodes is worth, beside what else learns of them.

game.py      a game's states as text, a random player, a player that follows values
data.py      episodes as arrays, each different key embedded once
learners.py  the store, its ablations and its rivals
making.py    the games
study.py     twenty games, 5 to 200 episodes, five draws
keys.py      what a key has to say, and what of the store does the work
cooking.py   unseen games after walkthroughs
report.py    tables and plot of docs/textworld.md
"""
