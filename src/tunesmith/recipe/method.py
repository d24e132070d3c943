"""What the loss of a run is: one class a method."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.rewards import Rewards
from tunesmith.recipe.section import (
    Count,
    CountOrZero,
    Noise,
    NotNegative,
    Number,
    Positive,
    Section,
    WholeNumber,
)


class Pretrain(Section):
    """Learn to continue plain text (next-token loss on every token)."""

    name: Literal["pretrain"] = "pretrain"
    pack: bool = True
    """Join short texts into rows of `data.max_tokens`; otherwise one text is one row."""


TokenLoss = Literal["nll", "dft", "eaft", "asft"]


class SFT(Section):
    """Imitate the answers (next-token loss on answer tokens only)."""

    name: Literal["sft"] = "sft"
    learn_prompts: bool = False
    """Also learn to predict the prompts."""
    learn_history: bool = True
    """Learn every answer of a conversation; otherwise only the last one."""
    neftune_alpha: NotNegative = 0.0
    """Strength of noise on the embeddings, 0 for none, 5 to 15 usual (arXiv:2310.05914)."""
    label_smoothing: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that all tokens get in equal parts, 0 for none (arXiv:1512.00567)."""
    loss: TokenLoss = "nll"
    """How much each token counts: nll all alike; dft by the probability it has already
    (arXiv:2508.05629); eaft by how undecided the model is (arXiv:2601.02151); asft as dft, and
    the model stays near what it was (arXiv:2509.23753)."""
    entropy_power: NotNegative = 1.0
    """Power of the entropy by which eaft weighs a token; 0 makes all alike."""
    anchor_weight: Positive = 0.1
    """Weight in asft of the divergence from the model before training."""


class Distill(Section):
    """Learn from a larger model what it expects at each token of the answers (arXiv:1503.02531)."""

    name: Literal["distill"] = "distill"
    teacher: str = Field(min_length=1)
    """The model to learn from, of the same vocabulary: a folder or a run."""
    teacher_weight: Number = Field(default=0.5, gt=0.0, le=1.0)
    """Share of the teacher in the loss; the rest is the next-token loss on the answers."""
    temperature: Positive = 1.0
    """Above 1 the teacher's less likely tokens count more, 1 to 4 usual."""
    beta: Number = Field(default=0.0, ge=0.0, le=1.0)
    """How both are compared: 0 covers all that the teacher says (forward KL), 1 keeps to its
    likeliest (reverse KL), between them generalised Jensen-Shannon (arXiv:2306.13649)."""
    learn_prompts: bool = False
    """Also learn to predict the prompts."""
    learn_history: bool = True
    """Learn every answer of a conversation; otherwise only the last one."""


PairLoss = Literal["sigmoid", "hinge", "ipo", "robust"]


class DPO(Section):
    """Prefer one answer to another (direct preference optimization, arXiv:2305.18290)."""

    name: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    """How far the model may go from where it began; lower is farther, 0.01 to 0.5 usual."""
    loss: PairLoss = "sigmoid"
    """How a pair is judged: sigmoid never rests, hinge (arXiv:2305.10425) rests at a margin of
    1 / beta, ipo (arXiv:2310.12036) wants 1 / (2 beta) a token and no more, robust
    (arXiv:2403.00409) expects wrong labels."""
    label_smoothing: Noise = 0.0
    """Share of pairs taken to be the wrong way round: sigmoid grows cautious, robust makes up for
    them."""
    length_normalize: bool = False
    """Compare log-probabilities a token, so that length does not count (arXiv:2411.15124)."""
    sft_weight: NotNegative = 0.0
    """Weight of a next-token loss on the chosen answer, 0 for none (arXiv:2404.19733)."""
    reference: str = Field(default="base", min_length=1)
    """What the answers are compared with: `base`, the model before training; `none`; or another
    model's folder."""


class ORPO(Section):
    """Imitate the chosen answers and lower the odds of the rejected (arXiv:2403.07691)."""

    name: Literal["orpo"] = "orpo"
    beta: Positive = 0.1
    """How much the odds count beside the next-token loss, 0.1 to 1 usual."""


class SimPO(Section):
    """Prefer by mean log-probability and a margin, no reference (arXiv:2405.14734)."""

    name: Literal["simpo"] = "simpo"
    beta: Positive = 2.0
    """Scale of the log-probabilities a token, 2 to 10 usual."""
    gamma: NotNegative = 1.0
    """Margin between both answers, half of beta usual."""


class CPO(Section):
    """Prefer and imitate at once, no reference (arXiv:2401.08417)."""

    name: Literal["cpo"] = "cpo"
    beta: Positive = 0.1
    """Scale of the log-probabilities, 0.1 usual."""
    label_smoothing: Noise = 0.0
    """Share of pairs taken to be the wrong way round."""
    sft_weight: NotNegative = 1.0
    """Weight of the next-token loss on the chosen answer."""


class KTO(Section):
    """Raise answers judged good, lower those judged bad (arXiv:2402.01306)."""

    name: Literal["kto"] = "kto"
    beta: Positive = 0.1
    """How far the model may go from where it began; lower is farther, 0.01 to 0.5 usual."""
    desirable_weight: NotNegative = 1.0
    """Weight of rows judged good."""
    undesirable_weight: NotNegative = 1.0
    """Weight of rows judged bad; weight times number of rows should be alike for both."""


class Reward(Section):
    """Learn to score answers, for other methods to learn from (arXiv:2203.02155)."""

    name: Literal["reward"] = "reward"
    center_rewards: NotNegative = 0.0
    """Weight that draws scores to zero on average, 0 for none, 0.01 usual (arXiv:2312.09244)."""


GroupLoss = Literal["grpo", "dapo", "dr_grpo", "rloo"]


class GRPO(Section):
    """Answer each question several times, learn what was rewarded most (arXiv:2402.03300)."""

    name: Literal["grpo"] = "grpo"
    rewards: Rewards
    """What an answer is worth: one reward or several, each a name or `{kind, weight, ...}`; the
    weighted scores are added up."""
    loss: GroupLoss = "grpo"
    """How a group is compared and its tokens are counted: grpo scales by the group's deviation and
    averages each answer; dapo (arXiv:2503.14476) averages over all tokens and clips less upwards;
    dr_grpo (arXiv:2503.20783) neither scales nor averages by length; rloo (arXiv:2402.14740)
    compares with the mean of the others and weighs whole answers."""
    group_size: WholeNumber = Field(default=8, ge=2, le=1024)
    """Answers written to each question; an update holds `optimizer.batch_size` questions."""
    answer_tokens: Count = 256
    """Longest answer; `data.max_tokens` is the longest question, with what was said before it."""
    temperature: Number = Field(default=1.0, ge=0.01, le=10)
    """How freely answers are drawn; held-out questions are answered with the likeliest tokens."""
    beta: NotNegative = 0.0
    """Strength of the pull to the model before training, 0 for none; 0.001 to 0.1 usual."""
    epsilon: Number = Field(default=0.2, gt=0, lt=1)
    """How far the probability of what was written may move within a rollout, relative to it."""
    epsilon_high: Positive | None = None
    """The same upwards where it differs; without one `epsilon`, and 0.28 for the loss dapo."""
    iterations: Count = 1
    """Updates that learn from the same answers before new ones are written."""
    redraws: Annotated[CountOrZero, Field(le=100)] = 0
    """Times that groups whose answers are all worth the same, from which nothing is learned, make
    room for answers to other questions (dynamic sampling, arXiv:2503.14476), 0 for none."""
    overlong: Literal["learn", "mask"] = "learn"
    """Whether answers that were cut at `answer_tokens` are learned from."""
    overlong_tokens: CountOrZero = 0
    """Over the last so many of `answer_tokens` the reward falls by up to 1, 0 for none
    (arXiv:2503.14476, equation 13)."""
    rollout_rows: Count = 32
    """Answers written at the same time; more are faster where memory allows."""


class PPO(Section):
    """Learn which tokens of its own answers bring more than was expected (arXiv:1707.06347)."""

    name: Literal["ppo"] = "ppo"
    rewards: Rewards
    """What an answer is worth: one reward or several, each a name or `{kind, weight, ...}`; the
    weighted scores are added up."""
    answer_tokens: Count = 256
    """Longest answer; `data.max_tokens` is the longest question, with what was said before it."""
    temperature: Number = Field(default=1.0, ge=0.01, le=10)
    """How freely answers are drawn; held-out questions are answered with the likeliest tokens."""
    beta: NotNegative = 0.05
    """Strength of the pull to the model before training, taken off the reward of each token; 0 for
    none, 0.01 to 0.2 usual."""
    kl_estimate: Literal["k1", "k3"] = "k1"
    """How far a token went from that model: k1 is exact on average, k3 varies less."""
    kl_target: NotNegative = 0.0
    """Divergence of an answer in nats that `beta` is adapted to, 0 to leave it as it is
    (arXiv:1909.08593)."""
    kl_horizon: Count = 10_000
    """Answers over which `beta` is adapted by a fifth at most."""
    epsilon: Number = Field(default=0.2, gt=0, lt=1)
    """How far the probability of what was written may move within a rollout, relative to it."""
    value_epsilon: NotNegative = 0.2
    """How far values may move within a rollout, 0 for as far as they like."""
    value_weight: Positive = 0.1
    """Weight of the loss of values beside that of the policy."""
    gamma: Number = Field(default=1.0, gt=0, le=1)
    """What a reward is worth one token earlier."""
    gae_lambda: Number = Field(default=0.95, ge=0, le=1)
    """How far rewards are followed before values are trusted (arXiv:1506.02438)."""
    iterations: Count = 4
    """Times that the same answers are learned from before new ones are written."""
    minibatches: Count = 1
    """Updates that each of these times is split into; `optimizer.batch_size` questions are asked
    for all of them."""
    scale_rewards: bool = False
    """Give rewards a mean of 0 and a variance of 1, by all that were seen so far."""
    clip_rewards: NotNegative = 0.0
    """Largest reward of an answer, up and down, 0 for any."""
    whiten_rewards: bool = False
    """Give the rewards of tokens a variance of 1, the pull to the model before training too."""
    cut_penalty: NotNegative = 0.0
    """Taken off the reward of answers that were cut at `answer_tokens`."""
    rollout_rows: Count = 32
    """Answers written at the same time; more are faster where memory allows."""


def _spell_labels(value: Any) -> Any:
    """Take labels that are whole numbers for texts, as rows do."""
    if not isinstance(value, dict):
        return value
    return {str(label) if type(label) is int else label: one for label, one in value.items()}


ClassWeights = Literal["balanced"] | Annotated[dict[str, Positive], BeforeValidator(_spell_labels)]


class Classify(Section):
    """Learn to name the class of a text, or of an image, by a head of one score a label."""

    name: Literal["classify"] = "classify"
    labels: tuple[str, ...] = ()
    """The labels in the order of the scores; if not given, those of the model where it knows all
    that the training rows have, else these, sorted."""
    class_weights: ClassWeights | None = None
    """How much a training row of each label counts: `balanced` lets all labels count alike in
    all, however many rows each has; or numbers by label, 1 for those not named."""


Online = GRPO | PPO
"""Methods that learn from answers which the model writes while it learns."""
Preference = DPO | ORPO | SimPO | CPO | KTO | Reward
"""Methods that learn what is preferred, and begin with a model that knows its language."""
Method = Annotated[
    Pretrain | SFT | Distill | DPO | ORPO | SimPO | CPO | KTO | Reward | Classify | GRPO | PPO,
    Field(discriminator="name"),
]
