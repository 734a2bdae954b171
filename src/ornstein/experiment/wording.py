"""What measures are called for readers who have never met them: on the page of a report, and in the studio."""

from ornstein.experiment.catalogue import summary
from ornstein.metrics import METRICS, inception, lite

#: what each measure says to one who has never met it; of others the first line of their docstring
PLAINLY: dict[str, str] = {
    "class-agreement": "A classifier trained on the real data looks at samples: how often does it see the class that "
    "was asked for?",
    "sliced-wasserstein": "How far would the samples have to be moved to turn them into real data, averaged over many "
    "directions?",
    "energy-distance": "Do samples lie as far from real data as real data lie from each other? 0 if so.",
    "mmd": "Are there regions with more samples, or fewer, than real data? 0 if there are none.",
    "frechet": "How far are the mean and spread of the samples' features from those of real data?",
    "kernel": "Like the row above, but also sensitive to the shape of the cloud of features. 0 if they are alike.",
    "c2st": "A classifier is trained to tell samples from real data: how often is it right? One half is guessing.",
    "precision": "What share of the samples looks like real data? Low means implausible samples.",
    "recall": "What share of the real data could be among the samples? Low means kinds that are never made.",
    "density": "In how many neighbourhoods of real data does a sample lie? Low means implausible samples; above real "
    "data's figure, samples that keep to what is commonest.",
    "coverage": "What share of the real data has a sample in its neighbourhood? Low means kinds that are never made.",
    "memorisation": "How far is a sample from the training example most like it? Far below real data means copies.",
    "trees": "Boosted trees are trained to tell samples from real rows: how often do they rank the two correctly? One "
    "half is guessing.",
    "network": "The same, with a small neural network.",
    "columns": "How far are words' shares and numbers' distributions from those of real rows, on average?",
    "pairs": "How far is the relation of two columns from that in real rows, on average?",
    "predict": "A model is trained on samples to predict this column from all others, and tested on real rows; beside "
    "it, one trained on as many real rows.",
    "closest record": "Among as many training as held-out rows, how often is the nearest to a sample a training row? "
    "One half is expected by chance.",
    "membership": "Do the samples betray whether a given row was trained on? One half is a coin toss.",
    "wasserstein": "How far must the carried points be moved, one by one, to lie where real points of the target lie?",
    "copies": "What share of the samples equals a training row to the last digit, beside the share that equals one of "
    "as many held-out rows?",
}
#: what a figure was measured in, in a sentence; of other features that they are such
MEASURED_IN: dict[str, str] = {
    "data": "",
    "labels": "",
    "features": "In the features of a classifier of the data.",
    "AUC": "In AUC: 0.5 is guessing, 1 is always right.",
    "R2": "In R2: 0 is no better than always guessing the mean, 1 is always right.",
    lite.NAME: f"In the features of {lite.NAME}, a network for photographs. The FID and KID of papers use another "
    "network: do not compare this with them.",
    inception.NAME: "In the features of the Inception that papers use: with these the Fréchet distance is FID, and the "
    "kernel distance KID. FID falls as samples grow in number; compare it only with one of equally many.",
}


def tones() -> dict[str, str]:
    """How the page colours the words of verdicts."""
    return {
        word: tone
        for made in METRICS.values()
        for word, tone in zip(made().words, ("good", "fair", "bad"), strict=True)
    }


def plainly(name: str) -> str:
    """What a measure says, for a reader who does not know it."""
    known = PLAINLY.get(name) or PLAINLY.get(name.partition(" ")[0])
    return known or (summary(METRICS[name]) if name in METRICS else "")
