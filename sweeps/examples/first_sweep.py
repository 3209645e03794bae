# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # From a CSV to a verdict and a prediction
#
# A notebook as a script: open it with jupytext or an editor that knows `# %%` cells, or run it from the checkout with
# `python sweeps/examples/first_sweep.py`. It takes about a minute on two CPU cores, offline.
#
# The question: *does the learning rate of a small head on a frozen encoder matter here, or was it the seed?*

# %%
import pandas as pd

import plmray

# %% [markdown]
# ## The data
# One row a protein: its residues, and a letter (C, E or H) for the structure of each. `set` says which proteins train
# and which test, `validation` which of the training proteins choose the checkpoint; `mask` leaves residues without
# structure out.

# %%
table = pd.read_csv("sweeps/data/secondary_structure_128.csv")
print(table.groupby(["set", "validation"], dropna=False).size())

# %% [markdown]
# ## The sweep
# Six settings with two seeds each are searched. Then the two best, and four drawn blindly, are judged on three fresh
# seeds: the blind ones tell how much of the spread is the settings and how much the seed.

# %%
sweep = plmray.load_sweep(
    {
        "name": "first-sweep",
        "task": {"files": "sweeps/data/secondary_structure_128.csv", "level": "residue", "kind": "classification"},
        "train": {
            "backbone": "esm2_plmray_1.6M",
            "adapter": {"kind": "none"},
            "head": {"kind": "linear"},
            "epochs": 6,
        },
        "space": {"optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}},
        "search": {"candidates": 6, "seeds": [0, 1], "sampler": "tpe", "sampler_seed": 1},
        "replicate": {"top": 2, "random": 4, "seeds": [101, 102, 103]},
    }
)
for line in sweep.validate():
    print(line)
print(sweep.plan())

# %% [markdown]
# ## The run
# In this process. Without `local=True` the same runs on a Ray cluster, to the same numbers. A second call goes on from
# what is there (`resume=True`).

# %%
found = plmray.run(sweep, storage_path="plmray_runs", local=True, resume=True, say=lambda _: None)

# %% [markdown]
# ## The verdict

# %%
print(found.headline)
print(found.candidates[["candidate_id", "origin", "score.mean", "score.sd", "n_seeds", "p_best", "test.mean"]])

# %%
for caution in found.verdict.warnings:
    print("-", caution)

# %% [markdown]
# Every trial is a row of a table, every evaluation a row of another; the whole report is a file beside them.

# %%
print(found.trials.groupby("phase").score.describe()[["count", "mean", "std"]])
print(found.report()[0])

# %% [markdown]
# ## A prediction
# The seeds of the best candidate become one model: a folder that `plmray predict`, MLflow and Python load.

# %%
bundle = found.export("first-sweep-bundle")
predicted = bundle.predict({"a peptide": "MKALIVLGLVLLSVTVQGKVFERCELARTLKR"})
print(predicted.head().round(3).to_string(index=False))
print("".join(predicted.label))
