/*
 * Takeover, recovery and acceptors (docs/PROTOCOL.md, sections 3 to 5), for spin.
 *
 * Two coordinators, three acceptors, INSTANCES instances, ROUNDS rounds: every order in which messages
 * can be lost, delayed, repeated and reordered, every crash, stall and return of a coordinator.
 *
 * How it is kept small without leaving a behaviour out:
 *
 * - A message is never taken back: what a round has ever sent may be received any number of
 *   times, at any time, or never. So there is no channel, and no step for loss or repetition.
 * - An answer to phase 1 reaches its coordinator at once or never. One that is delayed has the
 *   same effect as one that came at once, for until it acts a coordinator only collects. For the
 *   same reason it acts as soon as it may: what it sends waits on the network instead.
 * - A crash, a stall, stepping down and coming back: each is BEGIN, a new term in a fresh round
 *   with nothing remembered but the last round on disk. A coordinator that is down is one that
 *   takes no step; one that does not know that it was deposed goes on at any later time.
 * - What a quorum tells in READ_INDEX only makes a round high enough to win. Here a coordinator
 *   takes any round of its own above its last, which is more than the protocol allows it.
 * - A value is the number of the round that first proposed it: rounds never agree by accident.
 * - Acceptors are numbered by their state: which is which makes no difference.
 * - `low` stays at 1. Trimming and the ring are for the tests of the roles.
 *
 * An answer is one message here. With -DREPORTS it is what it is in the protocol: a summary and
 * one report for each slot, each lost alone, and what is missing asked for in chunks.
 *
 * MUTATION=number in the environment of ./pan leaves out a rule, CLAIM=number claims that
 * something cannot be reached; test_promela.py runs them all. `./pan -r` tells the steps to an
 * error.
 */

#ifndef ROUNDS
#define ROUNDS 4
#endif
#define ACCEPTORS 3
#ifndef INSTANCES
#define INSTANCES 1
#endif
#define LAST (INSTANCES - 1)
#define NONE 0
#define NO_OP (ROUNDS + 1)

/* Rules that can be left out. */
#define STALE_VOTE 1
#define STALE_PROMISE 2
#define PROMISE_NOT_KEPT 3
#define SLOT_PROMISE_NOT_KEPT 4
#define SLOT_PROMISE_IGNORED 5
#define FLOOR_IGNORED 6
#define REPEAT_LOWERS_PROMISE 7
#define PROMISES_LOST_IN_CRASH 8
#define VOTES_LOST_IN_CRASH 9
#define QUORUM_OF_ONE 10
#define LAST_REPORT_WINS 11
#define NO_OP_DESPITE_HIGHER_PROMISE 12
#define SERVES_FROM_LOW 13
#define ANSWER_OF_EARLIER_ROUND 14
#define ROUND_REUSED 15
#define RECOVERY_WITHOUT_PHASE_1 16
#define RECOVERY_IN_MAIN_ROUND 17
#define RECOVERY_ROUND_REUSED 18
#define RECOVERY_QUORUM_OF_ONE 19
#define RECOVERY_IGNORES_VOTES 20
#define VOTES_OF_TWO_ROUNDS_CHOOSE 21
/* With -DREPORTS. */
#define SUMMARY_SUFFICES 22
#define COUNT_DESPITE_CHUNKS 23

/* Claims that must fail: what the model is about does happen in it. */
#define CHOSEN 1
#define CHOSEN_IN_TWO_ROUNDS 2
#define NO_OP_CHOSEN 3
#define INSTANCE_LEFT_OUT 4
#define LEFT_OUT_CHOSEN_LATER 5
#define VALUE_RECOVERED 6
#define DEPOSED_GOES_ON 7

c_decl {
static int setting(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }
}
byte mutation, claim;
#define MUTATED(rule) (mutation == rule)

/* Registers -------------------------------------------------------------------------------------- */

/* A round's owner is part of it (section 1): odd ones are of coordinator 0, even ones of 1. */
#define OWNER(r) ((r + 1) % 2)
#define COORDINATOR(r) coordinators[OWNER(r)]
#define NEXT_ROUND(c) (coordinators[c].last == 0 -> c + 1 : (MUTATED(ROUND_REUSED) -> coordinators[c].last : coordinators[c].last + 2))

#define BIT(i) (1 << i)
#define HAS(set, i) ((set >> i) & 1)
#define TWO_OF_THREE(set) ((set & (set - 1)) != 0)

typedef Sent { /* all that was ever sent in a round, and the votes for it */
    bit begun; /* PHASE1A to the end of the log */
    byte asked; /* bit i: bounded PHASE1A of instance i */
    byte proposed[INSTANCES]; /* PHASE2A; NONE: not sent */
    byte voted[INSTANCES] /* bit a: PHASE2B of acceptor a */
};
Sent rounds[ROUNDS + 1];

typedef Slot {
    byte round; /* promised; 0: the slot does not hold its instance */
    byte vround /* of the vote, whose value is rounds[vround].proposed */
};
typedef Acceptor { /* all of it on disk: a crash changes nothing */
    byte floor;
    Slot slot[INSTANCES]
};
Acceptor acceptors[ACCEPTORS];

#define PROMISED(a, i) (acceptors[a].floor > acceptors[a].slot[i].round -> acceptors[a].floor : acceptors[a].slot[i].round)
#define HELD(a, i) (acceptors[a].slot[i].round != 0)
#define HIGHEST(a) (acceptors[a].slot[LAST].vround != 0 -> INSTANCES : (acceptors[a].slot[0].vround != 0 -> 1 : 0))

typedef Report { /* what one acceptor has told in phase 1 */
    bit summary;
    byte highest; /* instances from 1; 0: no vote */
#ifdef REPORTS
    byte count;
    byte named; /* bit i */
    bit by_name /* asked in chunks, or it promised a higher round: a count tells nothing more */
#endif
};
typedef Coordinator {
    byte last; /* the highest round used: on disk */
    byte round; /* of this term; 0: none begun */
    bit serving;
    byte next; /* instances below it are proposed, or left out */
    Report report[ACCEPTORS];
    byte found[INSTANCES]; /* the highest vround reported */
    byte refused; /* bit i: some acceptor has promised it to a higher round */
    byte recovery; /* the recovery round of this term */
    byte recovering[INSTANCES]; /* the round of its bounded phase 1; 0: none under way */
    byte heard[INSTANCES]; /* bit a: has promised that round */
    byte best[INSTANCES] /* the highest vround that these told */
};
Coordinator coordinators[2];

byte chosen[INSTANCES]; /* the value, by f+1 votes of one round */
byte left_out[INSTANCES], chosen_in[INSTANCES]; /* kept only for the claims about them */

/* The learner (section 5) and the invariants (section 10) ---------------------------------------- */

inline check_chosen(r, i) {
    set = rounds[r].voted[i];
    for (k : 1 .. ROUNDS) {
        set = (MUTATED(VOTES_OF_TWO_ROUNDS_CHOOSE) -> set | rounds[k].voted[i] : set)
    }
    if
    :: TWO_OF_THREE(set) ->
        /* Agreement. */
        assert(chosen[i] == NONE || chosen[i] == rounds[r].proposed[i]);
        /* Validity: it was requested in the round that it names, or it is a no-op. */
        value = rounds[r].proposed[i];
        assert(value == NO_OP || rounds[value % NO_OP].proposed[i] == value);
        chosen[i] = value;
        assert(claim != CHOSEN);
        assert(claim != NO_OP_CHOSEN || value != NO_OP);
        assert(claim != LEFT_OUT_CHOSEN_LATER || left_out[i] == 0 || r < left_out[i]);
        assert(claim != CHOSEN_IN_TWO_ROUNDS || chosen_in[i] == 0 || chosen_in[i] == r);
        chosen_in[i] = (claim == CHOSEN_IN_TWO_ROUNDS -> r : 0)
    :: else
    fi;
    value = 0;
    set = 0;
    k = 0
}

/* PHASE2A. One value a round (section 10). */
inline propose(r, i, what) {
    assert(rounds[r].proposed[i] == NONE || rounds[r].proposed[i] == what);
    rounds[r].proposed[i] = what;
    printf("coordinator %d: PHASE2A of round %d, instance %d: %d\n", OWNER(r), r, i + 1, what)
}

/* The value of the highest vround, else a no-op (section 4). */
#define VALUE_OF(vote, i) (vote == 0 -> NO_OP : rounds[vote].proposed[i])

/* The coordinator (section 4) -------------------------------------------------------------------- */

inline forget_phase_1(c) {
    for (k : 0 .. ACCEPTORS - 1) {
        coordinators[c].report[k].summary = 0;
        coordinators[c].report[k].highest = 0;
#ifdef REPORTS
        coordinators[c].report[k].count = 0;
        coordinators[c].report[k].named = 0;
        coordinators[c].report[k].by_name = 0
#endif
    }
    for (k : 0 .. INSTANCES - 1) {
        coordinators[c].found[k] = 0
    }
    coordinators[c].refused = 0;
    k = 0
}

inline begin_term(c) {
    if
    :: !MUTATED(ANSWER_OF_EARLIER_ROUND) -> forget_phase_1(c)
    :: else
    fi;
    for (k : 0 .. INSTANCES - 1) {
        coordinators[c].recovering[k] = 0;
        coordinators[c].heard[k] = 0;
        coordinators[c].best[k] = 0
    }
    k = 0;
    coordinators[c].recovery = 0;
    coordinators[c].serving = 0;
    coordinators[c].next = 0;
    coordinators[c].last = NEXT_ROUND(c);
    coordinators[c].round = coordinators[c].last;
    rounds[coordinators[c].last].begun = 1;
    printf("coordinator %d: PHASE1A of round %d\n", c, coordinators[c].last)
}

/* Complete: each instance it has voted in is named, or as many reports are here as it counted. */
#ifdef REPORTS
#define ALL_NAMED(report) (((report.named | (3 << report.highest)) & 3) == 3)
#define COUNTED(report) (HAS(report.named, 0) + HAS(report.named, 1) >= report.count)
#define COMPLETE(report) (report.summary && (MUTATED(SUMMARY_SUFFICES) || ALL_NAMED(report) || (!report.by_name && COUNTED(report))))
#else
#define COMPLETE(report) (report.summary)
#endif

inline win_if_promised(c) {
    set = 0;
    for (k : 0 .. ACCEPTORS - 1) {
        set = (COMPLETE(coordinators[c].report[k]) -> set | BIT(k) : set)
    }
    if
    :: TWO_OF_THREE(set) || (MUTATED(QUORUM_OF_ONE) && set != 0) ->
        at = coordinators[c].round;
        for (k : 0 .. ACCEPTORS - 1) {
            if
            :: HAS(set, k) && coordinators[c].report[k].highest > coordinators[c].next ->
                coordinators[c].next = coordinators[c].report[k].highest
            :: else
            fi
        }
        for (k : 0 .. INSTANCES - 1) {
            if
            :: k < coordinators[c].next && HAS(coordinators[c].refused, k) &&
               !MUTATED(NO_OP_DESPITE_HIGHER_PROMISE) ->
                assert(claim != INSTANCE_LEFT_OUT);
                left_out[k] = (claim == LEFT_OUT_CHOSEN_LATER -> at : 0)
            :: k < coordinators[c].next && !MUTATED(SERVES_FROM_LOW) &&
               (MUTATED(NO_OP_DESPITE_HIGHER_PROMISE) || !HAS(coordinators[c].refused, k)) ->
                value = VALUE_OF(coordinators[c].found[k], k);
                propose(at, k, value)
            :: else
            fi
        }
        coordinators[c].next = (MUTATED(SERVES_FROM_LOW) -> 0 : coordinators[c].next);
        coordinators[c].serving = 1;
        forget_phase_1(c)
    :: else
    fi;
    at = 0;
    value = 0;
    set = 0;
    k = 0
}

/* A request. A no-op that fills up to an instance asked for differs from it in nothing here. */
inline serve(c) {
    at = coordinators[c].round;
    k = coordinators[c].next;
    assert(claim != DEPOSED_GOES_ON || chosen[k] == NONE || chosen[k] <= at);
    propose(at, k, at);
    coordinators[c].next++;
    at = 0;
    k = 0
}

inline decide_if_promised(c, i) {
    if
    :: TWO_OF_THREE(coordinators[c].heard[i]) || MUTATED(RECOVERY_WITHOUT_PHASE_1) ||
       (MUTATED(RECOVERY_QUORUM_OF_ONE) && coordinators[c].heard[i] != 0) ->
        assert(claim != VALUE_RECOVERED || coordinators[c].best[i] == 0);
        at = coordinators[c].recovering[i];
        value = VALUE_OF(coordinators[c].best[i], i);
        propose(at, i, value);
        coordinators[c].recovering[i] = 0;
        coordinators[c].heard[i] = 0;
        coordinators[c].best[i] = 0
    :: else
    fi;
    at = 0;
    value = 0
}

/* The recovery round: a fresh one when there is none, or it was used for the instance already. */
inline recover(c, i) {
    set = 0; /* the round last sent for the instance, in this term */
    for (k : coordinators[c].round .. coordinators[c].last) {
        set = (OWNER(k) == c && rounds[k].proposed[i] != NONE -> k : set)
    }
    k = 0;
    if
    :: MUTATED(RECOVERY_IN_MAIN_ROUND) ->
        coordinators[c].recovery = coordinators[c].round;
        set = 0
    :: !MUTATED(RECOVERY_IN_MAIN_ROUND) && coordinators[c].last + 2 <= ROUNDS &&
       (coordinators[c].recovery == 0 ||
       (coordinators[c].recovery <= set && !MUTATED(RECOVERY_ROUND_REUSED))) ->
        coordinators[c].last = coordinators[c].last + 2;
        coordinators[c].recovery = coordinators[c].last
    :: else
    fi;
    if
    :: coordinators[c].recovery != 0 &&
       (coordinators[c].recovery > set || MUTATED(RECOVERY_ROUND_REUSED)) ->
        coordinators[c].recovering[i] = coordinators[c].recovery;
        coordinators[c].heard[i] = 0;
        coordinators[c].best[i] = 0;
        at = coordinators[c].recovery;
        rounds[at].asked = rounds[at].asked | BIT(i);
        printf("coordinator %d: recovers instance %d in round %d\n", c, i + 1, at);
        decide_if_promised(c, i)
    :: else
    fi;
    at = 0;
    set = 0
}

/* Answers of acceptors, as they arrive ----------------------------------------------------------- */

inline take_report(r, a, i) {
    printf("coordinator %d: hears of %d, instance %d: promised %d, vote %d\n", OWNER(r), a, i + 1, PROMISED(a, i), acceptors[a].slot[i].vround);
    if
    :: PROMISED(a, i) > r -> /* its vote does not count in this round */
        COORDINATOR(r).refused = COORDINATOR(r).refused | BIT(i)
    :: PROMISED(a, i) <= r && (acceptors[a].slot[i].vround > COORDINATOR(r).found[i] ||
       (MUTATED(LAST_REPORT_WINS) && acceptors[a].slot[i].vround != 0)) ->
        COORDINATOR(r).found[i] = acceptors[a].slot[i].vround
    :: else
    fi;
#ifdef REPORTS
    COORDINATOR(r).report[a].named = COORDINATOR(r).report[a].named | BIT(i);
    if
    :: PROMISED(a, i) > r ->
        COORDINATOR(r).report[a].by_name = 1
    :: else
    fi
#endif
}

inline hear_summary(r, a) {
    printf("coordinator %d: hears of %d that it promised %d\n", OWNER(r), a, r);
    COORDINATOR(r).report[a].summary = 1;
    COORDINATOR(r).report[a].highest = HIGHEST(a);
#ifdef REPORTS
    COORDINATOR(r).report[a].count = HELD(a, 0) + HELD(a, 1) /* -DREPORTS is for two instances */
#else
    take_report(r, a, 0);
    if
    :: LAST == 1 -> take_report(r, a, LAST)
    :: else
    fi
#endif
}

inline hear_promise(r, a, i) { /* bounded: one report is the whole answer */
    printf("coordinator %d: hears of %d, instance %d: promised %d, vote %d\n", OWNER(r), a, i + 1, r, acceptors[a].slot[i].vround);
    COORDINATOR(r).heard[i] = COORDINATOR(r).heard[i] | BIT(a);
    if
    :: acceptors[a].slot[i].vround > COORDINATOR(r).best[i] && !MUTATED(RECOVERY_IGNORES_VOTES) ->
        COORDINATOR(r).best[i] = acceptors[a].slot[i].vround
    :: else
    fi
}

/* The acceptor (section 3) ----------------------------------------------------------------------- */

inline vote(r, a, i) {
    acceptors[a].slot[i].round = r;
    acceptors[a].slot[i].vround = r;
    rounds[r].voted[i] = rounds[r].voted[i] | BIT(a);
    printf("acceptor %d: votes in %d, instance %d: %d\n", a, r, i + 1, rounds[r].proposed[i]);
    check_chosen(r, i)
}

/* Symmetry --------------------------------------------------------------------------------------- */

#define STATE(a) (acceptors[a].floor << 12 | acceptors[a].slot[0].round << 9 | acceptors[a].slot[0].vround << 6 | acceptors[a].slot[LAST].round << 3 | acceptors[a].slot[LAST].vround)
#define HISTORY(a) (HAS(rounds[1].voted[0], a) | HAS(rounds[1].voted[LAST], a) << 1 | HAS(rounds[2].voted[0], a) << 2 | HAS(rounds[2].voted[LAST], a) << 3 | HAS(rounds[3].voted[0], a) << 4 | HAS(rounds[3].voted[LAST], a) << 5 | coordinators[0].report[a].summary << 6 | coordinators[1].report[a].summary << 7 | HAS(coordinators[0].heard[0], a) << 8 | HAS(coordinators[0].heard[LAST], a) << 9 | HAS(coordinators[1].heard[0], a) << 10 | HAS(coordinators[1].heard[LAST], a) << 11)

#define SWAP(x, y) at = x; x = y; y = at
#define SWAPPED(set, a, b) ((set & ~(BIT(a) | BIT(b))) | HAS(set, a) << b | HAS(set, b) << a)

inline sort_two(one, two) {
    SWAP(acceptors[one].floor, acceptors[two].floor);
    for (set : 0 .. INSTANCES - 1) {
        SWAP(acceptors[one].slot[set].round, acceptors[two].slot[set].round);
        SWAP(acceptors[one].slot[set].vround, acceptors[two].slot[set].vround);
        for (k : 1 .. ROUNDS) {
            rounds[k].voted[set] = SWAPPED(rounds[k].voted[set], one, two)
        }
    }
    for (set : 0 .. 1) {
        SWAP(coordinators[set].report[one].summary, coordinators[set].report[two].summary);
        SWAP(coordinators[set].report[one].highest, coordinators[set].report[two].highest);
#ifdef REPORTS
        SWAP(coordinators[set].report[one].count, coordinators[set].report[two].count);
        SWAP(coordinators[set].report[one].named, coordinators[set].report[two].named);
        SWAP(coordinators[set].report[one].by_name, coordinators[set].report[two].by_name);
#endif
        for (k : 0 .. INSTANCES - 1) {
            coordinators[set].heard[k] = SWAPPED(coordinators[set].heard[k], one, two)
        }
    }
    at = 0;
    set = 0;
    k = 0
}

inline sort_acceptors() { /* two and two, until none is out of order */
    do
    :: STATE(value) > STATE(value + 1) ||
       (STATE(value) == STATE(value + 1) && HISTORY(value) > HISTORY(value + 1)) ->
        a = value + 1;
        sort_two(value, a);
        value = 0
    :: else ->
        value++;
        if
        :: value == ACCEPTORS - 1 -> break
        :: else
        fi
    od;
    value = 0
}

/* Steps ------------------------------------------------------------------------------------------ */

#define MAY_BEGIN(c) (NEXT_ROUND(c) <= ROUNDS)
#define MAY_SERVE(c) (coordinators[c].serving && coordinators[c].next < INSTANCES)
#define MAY_RECOVER(c, i) (coordinators[c].serving && i < coordinators[c].next && (coordinators[c].recovering[i] == 0 || coordinators[c].recovering[i] < coordinators[c].recovery))

#define PREPARING(r) (COORDINATOR(r).round == r && !COORDINATOR(r).serving)
#define KEPT(a, r) (acceptors[a].floor == r || MUTATED(PROMISE_NOT_KEPT))
#define KEPT_IN_SLOT(a, r, i) ((PROMISED(a, i) == r && HELD(a, i)) || MUTATED(SLOT_PROMISE_NOT_KEPT))

#define MAY_PROMISE(a, r) (rounds[r].begun && (r > acceptors[a].floor || (MUTATED(STALE_PROMISE) && r != acceptors[a].floor)))
#define MAY_SUM_UP(a, r) (PREPARING(r) && KEPT(a, r) && !COORDINATOR(r).report[a].summary)
#define MAY_PROMISE_ONE(a, r, i) (HAS(rounds[r].asked, i) && r >= PROMISED(a, i) && r > acceptors[a].slot[i].round)
#define MAY_ANSWER_ONE(a, r, i) (COORDINATOR(r).recovering[i] == r && KEPT_IN_SLOT(a, r, i) && !HAS(COORDINATOR(r).heard[i], a))

#define PROMISE_LETS(a, r, i) (r >= PROMISED(a, i) || MUTATED(STALE_VOTE) || (MUTATED(SLOT_PROMISE_IGNORED) && r >= acceptors[a].floor) || (MUTATED(FLOOR_IGNORED) && r >= acceptors[a].slot[i].round) || (MUTATED(REPEAT_LOWERS_PROMISE) && r == acceptors[a].slot[i].vround))
#define MAY_VOTE(a, r, i) (rounds[r].proposed[i] != NONE && (acceptors[a].slot[i].vround != r || MUTATED(REPEAT_LOWERS_PROMISE)) && acceptors[a].slot[i].round + acceptors[a].slot[i].vround != 2 * r && PROMISE_LETS(a, r, i))
#define MAY_CRASH(a, r) (r == 1 && ((MUTATED(PROMISES_LOST_IN_CRASH) && acceptors[a].floor != 0) || (MUTATED(VOTES_LOST_IN_CRASH) && HELD(a, LAST))))

#ifdef REPORTS
#define MAY_REPORT(a, r, i) (PREPARING(r) && KEPT(a, r) && HELD(a, i))
#define MAY_TAKE_CHUNK(a, r, i) (PREPARING(r) && KEPT(a, r) && !HELD(a, i) && COORDINATOR(r).report[a].summary && i < COORDINATOR(r).report[a].highest)
#endif

/* For every acceptor, round and instance of which the condition holds: one way to go on. */
#define SOME(KIND, condition, A, R, I) :: condition -> kind = KIND; a = A; r = R; i = I
#define SOME_ACCEPTOR(KIND, MAY, R) SOME(KIND, MAY(0, R), 0, R, 0) SOME(KIND, MAY(1, R), 1, R, 0) SOME(KIND, MAY(2, R), 2, R, 0)
#if INSTANCES == 1
#define SOME_INSTANCE(KIND, MAY, R) SOME(KIND, MAY(0, R, 0), 0, R, 0) SOME(KIND, MAY(1, R, 0), 1, R, 0) SOME(KIND, MAY(2, R, 0), 2, R, 0)
#else
#define SOME_INSTANCE(KIND, MAY, R) SOME(KIND, MAY(0, R, 0), 0, R, 0) SOME(KIND, MAY(0, R, 1), 0, R, 1) SOME(KIND, MAY(1, R, 0), 1, R, 0) SOME(KIND, MAY(1, R, 1), 1, R, 1) SOME(KIND, MAY(2, R, 0), 2, R, 0) SOME(KIND, MAY(2, R, 1), 2, R, 1)
#endif
#if ROUNDS == 3
#define SOME_ROUND(OF, KIND, MAY) OF(KIND, MAY, 1) OF(KIND, MAY, 2) OF(KIND, MAY, 3)
#elif ROUNDS == 4
#define SOME_ROUND(OF, KIND, MAY) OF(KIND, MAY, 1) OF(KIND, MAY, 2) OF(KIND, MAY, 3) OF(KIND, MAY, 4)
#elif ROUNDS == 5
#define SOME_ROUND(OF, KIND, MAY) OF(KIND, MAY, 1) OF(KIND, MAY, 2) OF(KIND, MAY, 3) OF(KIND, MAY, 4) OF(KIND, MAY, 5)
#else
#define SOME_ROUND(OF, KIND, MAY) OF(KIND, MAY, 1) OF(KIND, MAY, 2) OF(KIND, MAY, 3) OF(KIND, MAY, 4) OF(KIND, MAY, 5) OF(KIND, MAY, 6)
#endif

#define BEGIN 1
#define SERVE 2
#define RECOVER 3
#define PROMISE 4
#define SUM_UP 5
#define PROMISE_ONE 6
#define ANSWER_ONE 7
#define VOTE 8
#define CRASH 9
#define REPORT 10
#define TAKE_CHUNK 11

active proctype everybody() {
    byte kind, c, a, r, i; /* of the step */
    byte k, set, at, value; /* within it; all are 0 between steps, so that they are no state */
    c_code { now.mutation = setting("MUTATION"); now.claim = setting("CLAIM"); };
    do
    :: atomic {
        if
        :: MAY_BEGIN(0) -> kind = BEGIN
        :: MAY_BEGIN(1) -> kind = BEGIN; c = 1
        :: MAY_SERVE(0) -> kind = SERVE
        :: MAY_SERVE(1) -> kind = SERVE; c = 1
        :: MAY_RECOVER(0, 0) -> kind = RECOVER
        :: MAY_RECOVER(1, 0) -> kind = RECOVER; c = 1
#if INSTANCES == 2
        :: MAY_RECOVER(0, 1) -> kind = RECOVER; i = 1
        :: MAY_RECOVER(1, 1) -> kind = RECOVER; c = 1; i = 1
#endif
        SOME_ROUND(SOME_ACCEPTOR, PROMISE, MAY_PROMISE)
        SOME_ROUND(SOME_ACCEPTOR, SUM_UP, MAY_SUM_UP)
        SOME_ROUND(SOME_INSTANCE, PROMISE_ONE, MAY_PROMISE_ONE)
        SOME_ROUND(SOME_INSTANCE, ANSWER_ONE, MAY_ANSWER_ONE)
        SOME_ROUND(SOME_INSTANCE, VOTE, MAY_VOTE)
#ifdef REPORTS
        SOME_ROUND(SOME_INSTANCE, REPORT, MAY_REPORT)
        SOME_ROUND(SOME_INSTANCE, TAKE_CHUNK, MAY_TAKE_CHUNK)
#endif
        SOME_ACCEPTOR(CRASH, MAY_CRASH, 1)
        fi;
        d_step {
            if
            :: kind == BEGIN -> begin_term(c)
            :: kind == SERVE -> serve(c)
            :: kind == RECOVER -> recover(c, i)
            :: kind == PROMISE ->
                acceptors[a].floor = r;
                printf("acceptor %d: promises %d\n", a, r)
            :: kind == SUM_UP ->
                hear_summary(r, a);
                c = OWNER(r);
                win_if_promised(c)
            :: kind == PROMISE_ONE ->
                acceptors[a].slot[i].round = r;
                printf("acceptor %d: promises %d for instance %d\n", a, r, i + 1)
            :: kind == ANSWER_ONE ->
                hear_promise(r, a, i);
                c = OWNER(r);
                decide_if_promised(c, i)
            :: kind == VOTE -> vote(r, a, i)
#ifdef REPORTS
            :: kind == REPORT ->
                take_report(r, a, i);
                c = OWNER(r);
                win_if_promised(c)
            :: kind == TAKE_CHUNK -> /* a question for a chunk, whose answer names each instance */
                acceptors[a].slot[i].round = r;
                COORDINATOR(r).report[a].by_name = !MUTATED(COUNT_DESPITE_CHUNKS);
                printf("acceptor %d: promises %d for instance %d, in a chunk\n", a, r, i + 1)
#endif
            :: kind == CRASH -> /* of one that did not write to its disk */
                acceptors[a].floor = (MUTATED(PROMISES_LOST_IN_CRASH) -> 0 : acceptors[a].floor);
                for (k : 0 .. INSTANCES - 1) {
                    acceptors[a].slot[k].vround = (MUTATED(VOTES_LOST_IN_CRASH) -> 0 : acceptors[a].slot[k].vround);
                    acceptors[a].slot[k].round = acceptors[a].slot[k].vround
                }
                k = 0;
                printf("acceptor %d: crashes\n", a)
            fi;
            sort_acceptors();
            kind = 0;
            c = 0;
            a = 0;
            r = 0;
            i = 0
        }
      }
    od
}
