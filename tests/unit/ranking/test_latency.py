from services.ranking.latency import MovingQuantile


def test_a_high_quantile_of_the_newest_calls_that_are_not_too_old():
    now = [0.0]
    durations = MovingQuantile(lambda: now[0])
    assert durations.estimate(0.25) == 0.25
    for _ in range(9):
        durations.add(0.01)
    durations.add(1.0)
    assert durations.estimate(0.25) == 1.0
    for _ in range(60):
        durations.add(0.02)
    assert durations.estimate(0.25) == 0.02
    # Slow calls are forgotten, so that the re-ranker is tried again.
    now[0] = 31.0
    assert durations.estimate(0.25) == 0.25
