"""The trained parts of one scenario, step by step. Each step is kept and done once for the same inputs.

dataset → split → language model → user tower → collaborative table → scorer → re-ranker (→ scorer once more)

Axes: N items, M training positions, Q queries, K candidates, D vector length.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import peft
import torch
from tokenizers import Tokenizer
from torch import Tensor

from services.model.collaborative import ItemColumns
from services.model.item_tower import ItemEncoder
from services.model.reranker import Reranker
from services.model.scorer import Scorer
from services.runtime.bundle import PrivacyInfo
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.adapt_items import adapt_items, encode_catalogue
from services.training.base_model import load_tokenizer
from services.training.checkpoints import Checkpoints, Partial, State, StepLog, state_key
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, tokenise
from services.training.distil import Lesson, prepare_lesson
from services.training.distributed import process_count
from services.training.features import (
    FeatureTables,
    HistoryTable,
    fit_columns,
    fit_event_tables,
    fit_text_tables,
    states_of,
    tables_of,
)
from services.training.fusion import fit_fusion
from services.training.language_model import load_item_encoder, start_item_encoder
from services.training.pretrain import pretrain
from services.training.progress import Reporter
from services.training.requests import Requests
from services.training.reranker_candidates import NegativePool, make_pool
from services.training.settings.reranker import RerankerSettings
from services.training.split import Queries, build_queries, first_clicks
from services.training.start import Start
from services.training.train_reranker import RerankerTexts, check_base_model, make_reranker, train_reranker
from services.training.train_scorer import Vectors, make_labels, make_scorer, train_scorer
from services.training.train_users import Towers, make_towers, train_users
from services.training.transfer import start_from, text_quality

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_BATCH = 16

STEPS = (
    "pretraining",
    "language-model",
    "user-tower",
    "item-to-item",
    "features",
    "scorer",
    "reranker",
    "distillation",
)
"""The names of the steps that learn."""
_VERSIONS = {"pretraining": 1, "item_adaptation": 1, "user_tower": 1, "collaborative": 5, "scorer": 9}
"""By section of the settings, how often what its step does with them has changed: a kept result of another version is
not used."""
_ITEM_TO_ITEM_VERSION = 3
_FEATURES_VERSION = 3
_SCORER_SECTIONS = ("item_adaptation", "user_tower", "collaborative", "scorer")
_RERANKER_POSITIONS = 4_000


class Adaptation:
    """One scenario's adaptation. Attributes are steps: asking for one does it, or loads what was kept."""

    def __init__(
        self,
        scenario: Scenario,
        dataset: Dataset,
        settings: TrainingSettings,
        checkpoints: Checkpoints,
        reporter: Reporter,
        source: "Adaptation | None" = None,
    ) -> None:
        """`source`: the adaptation of the scenario that `transfer_from` names."""
        self.scenario = scenario
        self.tasks = scenario.head.tasks
        self.dataset = dataset
        self.settings = settings
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.source = source

    def key(self, *sections: str) -> str:
        """The key of a step that depends on the data, the scenario's head and these sections of the settings."""
        values = self.settings.model_dump(mode="json")
        common = {
            name: values[name]
            for name in (
                "base_model", "seed", "threads", "precision", "accumulation_steps", "item_tokens", "vector_dimension",
                "history_length", "validation_queries",
            )
        }  # fmt: skip
        # Shares of a batch are summed in another order.
        common["processes"] = process_count()
        if "user_tower" in sections:
            # The language model, which learns before, knows nothing of it.
            common["warm_events"] = values["warm_events"]
        parts = {
            "data": self.dataset.fingerprint,
            "head": self.scenario.head.model_dump(mode="json", exclude={"blend", "description"}),
            "common": common,
            "sections": {name: values[name] for name in sections},
        }
        versions = {name: version for name, version in _VERSIONS.items() if name in sections}
        if versions:
            parts["versions"] = versions
        if sections:
            parts["pretraining"] = values["pretraining"]
        if sections and self.source is not None:
            parts["source"] = self.source.key("item_adaptation", "user_tower")
        return state_key(parts)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The base model's tokenizer."""
        return load_tokenizer(self.settings.base_model)

    @cached_property
    def validation(self) -> Queries:
        """The validation queries that tuning, early stopping and calibration use."""
        return self._validation_sample(self.settings.validation_queries)

    @cached_property
    def train_queries(self) -> Queries:
        """All training positions that have a history."""
        return build_queries(self.dataset.interactions, self.dataset.split, self.tasks, "train").with_history()

    @cached_property
    def adapted(self) -> State:
        """Step 1: the language model's state and `pooled`, its states of the catalogue [N, W]."""

        def work(partial: Any) -> State:
            # Not only once the other steps have been waited for.
            check_base_model(self.settings)
            start, chosen = self.start, self.settings.item_adaptation
            replayed = self.source.dataset if self.source is not None and chosen.replay_share > 0 else None
            pooled = self._states_of(start) if start.language_model else self.frozen_states
            adapted = adapt_items(
                self.dataset, self.tokenizer, self.settings, start, pooled, partial, self.reporter, replayed
            )
            return {**adapted, "users": start.users}

        return self.checkpoints.run("language-model", self.key("item_adaptation"), work)

    @cached_property
    def start(self) -> Start:
        """What steps 1 and 2 begin from, step 0 done."""
        start = self._source_start()
        if self.settings.pretraining.steps == 0:
            return start

        def work(partial: Any) -> State:
            return pretrain(self.dataset, self.tokenizer, self.settings, start, partial, self.reporter)

        return replace(start, language_model=self.checkpoints.run("pretraining", self.key("pretraining"), work))

    def _source_start(self) -> Start:
        """What the scenario of transfer_from has learned; nothing without one. SetupError when it does not fit."""
        if self.settings.transfer_from is None:
            return Start()
        if self.source is None:
            raise SetupError(f"transfer_from {self.settings.transfer_from}: that scenario is not at hand")
        if self.source.settings.base_model != self.settings.base_model:
            raise SetupError(
                f"transfer_from {self.source.scenario.name}: its base_model is {self.source.settings.base_model}, here "
                f"it is {self.settings.base_model}; set the same in both scenarios"
            )
        return start_from(self.source.adapted, self.source.towers)

    @cached_property
    def forgetting(self) -> State | None:
        """What the scenario of transfer_from would lose if it took over this scenario's language model; None without
        one."""
        source = self.source
        if source is None:
            return None

        def work(_: object) -> State:
            encoder = load_item_encoder(self.settings, self.adapted)
            token_ids = tokenise(source.tokenizer, source.dataset.texts, source.settings.item_tokens)
            states = {"before": source.adapted["pooled"]}
            states["after"] = encode_catalogue(encoder, token_ids, source.settings, self.reporter)
            quality = {
                name: text_quality(
                    source.dataset, source.validation, source.towers, pooled, source.settings.history_length
                )
                for name, pooled in states.items()
            }
            self.reporter.say(
                f"{source.scenario.name} by text alone, NDCG@10 on its validation: {quality['before']:.4f} with its "
                f"own language model, {quality['after']:.4f} with that of {self.scenario.name}"
            )
            return {"scenario": source.scenario.name, **quality}

        return self.checkpoints.run("forgetting", self.key("item_adaptation"), work)

    @cached_property
    def frozen_states(self) -> Tensor:
        """[N, W] states of the base model as it came."""

        def work(_: object) -> State:
            return {"pooled": self._states_of(Start())}

        pooled: Tensor = self.checkpoints.run("frozen", self.key(), work)["pooled"]
        return pooled

    @property
    def frozen_vectors(self) -> FloatArray:
        """[N, W] the same with unit length, for the baselines."""
        return torch.nn.functional.normalize(self.frozen_states, dim=-1).numpy()

    def _states_of(self, start: Start) -> Tensor:
        """[N, W] states of the language model that `start` names."""
        encoder = start_item_encoder(self.settings, start)
        token_ids = tokenise(self.tokenizer, self.dataset.texts, self.settings.item_tokens)
        return encode_catalogue(encoder, token_ids, self.settings, self.reporter)

    @cached_property
    def towers(self) -> Towers:
        """Step 2: user encoder and item vectors."""
        if self.settings.user_tower.loss == "squared_error" and self.tasks.rating is None:
            raise SetupError("training.user_tower.loss squared_error: the scenario has no tasks.rating; define it")

        def work(partial: Partial) -> State:
            clicks = first_clicks(self.dataset.interactions, self.tasks)
            interest = make_labels(self.dataset, self.tasks).rating
            return train_users(
                self.dataset, clicks, interest, self.validation, self.settings, self.adapted, partial, self.reporter
            )

        state = self.checkpoints.run("user-tower", self.key("item_adaptation", "user_tower"), work)
        towers = make_towers(self.dataset, self.settings, self.adapted)
        towers.load_state_dict(state, strict=False)
        return towers.eval()

    @cached_property
    def item_vectors(self) -> Tensor:
        """[N, D]."""
        return self.towers.item_vectors()

    @cached_property
    def text_vectors(self) -> FloatArray:
        """[N, D]: what the item encoder says of each text, without id embeddings."""
        with torch.inference_mode():
            vectors: FloatArray = self.towers.items.projection(self.adapted["pooled"]).numpy()
        return vectors

    @cached_property
    def item_encoder(self) -> ItemEncoder:
        """The adapted language model with the projection as the towers trained it."""
        encoder = load_item_encoder(self.settings, self.adapted)
        encoder.projection = self.towers.items.projection
        return encoder

    @cached_property
    def event_tables(self) -> dict[str, HistoryTable]:
        """Step 3: what went together in train. It knows no language model, and is kept whatever that one learns."""

        def work(_: object) -> State:
            queries = self._validation_sample(self.settings.collaborative.validation_queries)
            return states_of(
                fit_event_tables(self.dataset, self.tasks, queries, self.settings.collaborative, self.reporter)
            )

        # The step's own version: what it keeps of how weights were fitted changes no step after it.
        key = state_key([self.key("collaborative"), _ITEM_TO_ITEM_VERSION])
        return tables_of(self.checkpoints.run("item-to-item", key, work))

    @cached_property
    def tables(self) -> FeatureTables:
        """Step 3, its end: what texts tell, and columns of popularity."""
        chosen = self.settings.collaborative

        def work(_: object) -> State:
            states: Tensor = self.adapted["pooled"]
            texts = fit_text_tables(
                self.dataset, self.tasks, self.text_vectors, states.numpy(), self.validation, chosen, self.reporter
            )
            columns = fit_columns(self.dataset, self.tasks, states.numpy(), chosen.half_life_days)
            kept = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in asdict(columns).items()}
            return {"texts": states_of(texts), "columns": kept}

        key = state_key([self.key("item_adaptation", "user_tower", "collaborative"), _FEATURES_VERSION])
        state = self.checkpoints.run("features", key, work)
        histories = {**self.event_tables, **tables_of(state["texts"])}
        columns = ItemColumns(**{name: column.numpy() for name, column in state["columns"].items()})
        return FeatureTables(histories, columns, chosen.history_events)

    @cached_property
    def requests(self) -> Requests:
        """Scorer inputs made with the torch user encoder."""
        return self.requests_over(self.dataset)

    def requests_over(self, dataset: Dataset) -> Requests:
        """The same for queries about the events of `dataset`, which has the items that this was adapted to."""

        def encode(histories: Any) -> FloatArray:
            return self.towers.user_vectors(histories, self.item_vectors).numpy()

        return Requests(dataset, self.item_vectors.numpy(), self.tables, encode, self.settings.history_length)

    @cached_property
    def first_scorer(self) -> Scorer:
        """Step 4: the scorer as it learns from users alone, its parts joined."""
        return self._scorer("scorer", self.key(*_SCORER_SECTIONS))

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer that is served: step 4's, or step 6's, which has learned from the re-ranker, too."""
        if self.settings.distillation.weight == 0:
            return self.first_scorer
        return self._scorer("distillation", self.key(*_SCORER_SECTIONS, "reranker", "distillation"), self._lesson)

    def _scorer(self, step: str, key: str, lesson: Callable[[], Lesson] | None = None) -> Scorer:
        def work(partial: Any) -> State:
            queries = self.train_queries.sample(self.settings.scorer.train_events, self.settings.seed)
            vectors = Vectors(self.item_vectors, self.towers.scale().item())
            user_vectors = torch.from_numpy(self.requests.user_vectors(queries))
            labels = make_labels(self.dataset, self.tasks)
            state = train_scorer(
                self.dataset, queries, labels, vectors, self.settings, self.tasks, user_vectors, partial, self.reporter,
                lesson() if lesson is not None else None,
            )  # fmt: skip
            scorer = make_scorer(self.settings, self.tasks)
            scorer.load_state_dict(state)
            fusion = self._validation_sample(self.settings.scorer.fusion_queries)
            chosen = self.settings.scorer
            fit_fusion(scorer, fusion, self.requests, chosen.cold_price, chosen.left_out, self.reporter)
            return dict(scorer.state_dict())

        scorer = make_scorer(self.settings, self.tasks)
        scorer.load_state_dict(self.checkpoints.run(step, key, work))
        return scorer.eval()

    def _lesson(self) -> Lesson:
        """What the re-ranker says at training positions. SetupError when train has none."""
        queries = self.train_queries.sample(self.settings.distillation.positions, self.settings.seed + 2)
        pool = self.negatives(queries)
        return prepare_lesson(self.reranker, self.reranker_texts, pool, self.settings, self.reporter)

    @cached_property
    def reranker_texts(self) -> RerankerTexts:
        """Tokens for the re-ranker."""
        return RerankerTexts(self.dataset, self.tokenizer, self.settings.reranker)

    @cached_property
    def reranker(self) -> Reranker:
        """Step 5: the re-ranker, LoRA merged."""
        chosen = self.settings.reranker

        def work(partial: Any) -> State:
            pool = self._reranker_pool(chosen)
            reranker = make_reranker(load_item_encoder(self.settings, self.adapted).language_model, self.settings)
            ratings = make_labels(self.dataset, self.tasks).rating
            return train_reranker(reranker, self.reranker_texts, pool, ratings, self.settings, partial, self.reporter)

        key = self.key(*_SCORER_SECTIONS, "reranker")
        state = self.checkpoints.run("reranker", key, work)
        reranker = make_reranker(load_item_encoder(self.settings, self.adapted).language_model, self.settings)
        reranker.load_state_dict(state, strict=False)
        for module in reranker.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.merge()
        return reranker.eval()

    @property
    def privacy_info(self) -> PrivacyInfo | None:
        """What a bundle may say of its privacy; None: it is not private."""
        return None

    def do_all(self, with_reranker: bool = True) -> dict[str, StepLog]:
        """Do every step that was not done before; how each went, by step."""
        if self.settings.pretraining.steps > 0:
            _ = self.start
        _ = self.adapted, self.towers, self.tables, self.scorer
        if with_reranker and self.settings.reranker.enabled:
            _ = self.reranker
        # The frozen model's vectors are a baseline's, and asked for only by steps that are not kept.
        return {step: log for step, log in self.checkpoints.logs.items() if step in STEPS}

    def _validation_sample(self, count: int) -> Queries:
        queries = build_queries(self.dataset.interactions, self.dataset.split, self.tasks, "valid")
        return queries.sample(count, self.settings.seed)

    def _reranker_pool(self, chosen: RerankerSettings) -> NegativePool:
        """The training positions that the re-ranker learns from. SetupError when there are none for its loss."""
        queries = self.train_queries
        if chosen.loss == "squared_error":
            if self.tasks.rating is None:
                raise SetupError("training.reranker.loss squared_error: the scenario has no tasks.rating; define it")
            queries = queries.take(self.dataset.interactions.ratings(self.tasks.rating)[queries.events])
        count = min(_RERANKER_POSITIONS, chosen.steps * chosen.batch_histories)
        return self.negatives(queries.sample(count, self.settings.seed + 1))

    def negatives(self, queries: Queries) -> NegativePool:
        """What the re-ranker is to tell from the items that came. SetupError when there are no `queries`."""
        if len(queries) == 0:
            raise SetupError("training.reranker: train holds no event that it could learn from; set enabled to false")
        # Before inference mode: they may have to learn first.
        scorer, requests = self.first_scorer, self.requests
        with torch.inference_mode(), self.reporter.track("Negatives", -(-len(queries) // _BATCH)) as advance:
            return make_pool(
                queries,
                self.dataset.split.train_end,
                lambda batch: scorer(**requests.tensors(batch))[0].numpy(),
                4 * self.settings.reranker.candidates,
                _BATCH,
                self.settings.seed,
                lambda: advance(""),
            )
