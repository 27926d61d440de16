/* Agreement on one height: three honest validators and a Byzantine one (n = 4, f = 1).
 *
 * The network is asynchronous: a vote, once cast, may be read at any later time or never. So the
 * votes of all honest validators are one pool of counters, and a rule may fire whenever the pool
 * holds what it needs; what a slow network hides is a rule that does not fire. The Byzantine one
 * votes for everything in every round, each time to whom it likes, so a quorum needs one honest
 * vote less; every round's proposal may be anything; timeouts fire at any time. That is the worst
 * network with the strongest liar, and few states. What the pool allows to be decided counts as
 * decided. -DLIVE adds: after any such prefix the network becomes good, all that was sent arrives,
 * and the honest propose in turn; then all must decide, or they are wedged.
 *
 * docs/model.md maps each rule to its lines in the code. A mutant is a -D switch. */

#ifndef ROUNDS
#define ROUNDS 3                 /* of the bad network */
#endif
#define HONEST 3
#define A 1                      /* two valid blocks ... */
#define B 2
#define BAD 3                    /* ... and one that does not execute to its own roots */
#define NIL 0
#define NONE 15                  /* round -1 */

#ifdef SMALL_QUORUM              /* more than a third is taken for a quorum */
#define QUORUM 2
#else
#define QUORUM 3
#endif

#define at(r, v) ((r) * 3 + (v) - 1)
#define polka(r, v)   (prevotes[at(r, v)] + 1 >= QUORUM)
#define commits(r, v) (precommits[at(r, v)] + 1 >= QUORUM)

#ifdef FIRST_VOTE                /* of an equivocator each node keeps the first vote it sees */
#define decides(i, r, v) (precommits[at(r, v)] + (first[i] == v) >= QUORUM)
#else
#define decides(i, r, v) commits(r, v)
#endif

#if defined(NO_CHECK)            /* proposals are not executed */
#define correct(i, v) true
#elif defined(VETO_INVALID)      /* what a node does not want it holds to be INVALID */
#define correct(i, v) (v != BAD && v != unwanted[i])
#else
#define correct(i, v) (v != BAD)
#endif

#if defined(NO_LOCK)             /* no lock at all */
#define lockAllows(i, v, pol) true
#elif defined(NO_UNLOCK)         /* a later polka does not undo a lock */
#define lockAllows(i, v, pol) (lockedRound[i] == NONE || lockedValue[i] == v)
#elif defined(ANY_POLKA)         /* any polka undoes it, also one older than the lock */
#define lockAllows(i, v, pol) (lockedRound[i] == NONE || lockedValue[i] == v || pol != NONE)
#else
#define lockAllows(i, v, pol) \
  (lockedRound[i] == NONE || lockedValue[i] == v || (pol != NONE && lockedRound[i] <= pol))
#endif

#ifdef NO_POLKA                  /* the proposer's word is taken for the polka */
#define justified(pol, v) true
#else
#define justified(pol, v) polka(pol, v)
#endif

mtype = { propose, prevote, precommit };
byte prevotes[ROUNDS * 3], precommits[ROUNDS * 3];      /* of the honest, but those for nil */
byte round[HONEST], lockedRound[HONEST], lockedValue[HONEST];
mtype step[HONEST];
#ifdef LIVE
byte validRound[HONEST], validValue[HONEST], unwanted[HONEST];
#endif
#ifdef FIRST_VOTE
byte first[HONEST];
#endif
byte i, v, pol;

inline setValid(i, v) {
#ifdef LIVE
  validRound[i] = round[i]; validValue[i] = v
#else
  skip
#endif
}

inline castPrevote(i, v) { prevotes[at(round[i], v)]++; step[i] = prevote }

inline castPrecommit(i, v) { precommits[at(round[i], v)]++; step[i] = precommit }

/* One honest validator does what some rule allows. */
inline move() {
  if :: i = 0 :: i = 1 :: i = 2 fi;
  if :: v = A :: v = B :: v = BAD fi;
  if
  :: step[i] == propose && lockAllows(i, v, NONE) && correct(i, v) ->       /* L22 */
     castPrevote(i, v)
  :: step[i] == propose && round[i] > 0 ->                                  /* L28 */
     pol = 0;
     do :: pol + 1 < round[i] -> pol++ :: break od;
     if
     :: justified(pol, v) && lockAllows(i, v, pol) && correct(i, v) -> castPrevote(i, v)
     :: else
     fi
  :: step[i] == propose -> step[i] = prevote                                /* nil: L22, L28, L57 */
  :: step[i] == prevote && polka(round[i], v) && correct(i, v) ->           /* L36 */
     lockedRound[i] = round[i]; lockedValue[i] = v; setValid(i, v); castPrecommit(i, v)
  :: step[i] == precommit && polka(round[i], v) && correct(i, v) ->         /* L42 */
     setValid(i, v)
  :: step[i] == prevote -> step[i] = precommit                              /* nil: L44, L61 */
  :: round[i] + 1 < ROUNDS -> round[i]++; step[i] = propose                 /* L55, L65 */
#ifdef AMNESIA                   /* a crash loses the lock: no write-ahead log */
  :: lockedRound[i] != NONE -> lockedRound[i] = NONE; lockedValue[i] = NIL
#endif
  :: else
  fi
}

#define decided(v) (commits(0, v) || commits(1, v) || commits(ROUNDS - 1, v))                /* L49 */

#ifdef LIVE
byte p, voters, done[HONEST];
bool quorate;

/* All that was sent has arrived. */
inline deliver() {
  for (i : 0 .. HONEST - 1) { for (p : 0 .. ROUNDS - 1) { for (v : A .. B) {
    if :: decides(i, p, v) && correct(i, v) -> done[i] = true :: else fi
  } } }
}

/* A round that an honest one proposes, in which all wait long enough. The Byzantine one may still
 * make two prevotes a polka, or not. Whoever has decided votes no more. */
inline goodRound(p) {
  v = (p == 1 -> B : A); pol = NONE; voters = 0;
#ifndef NO_VALID                 /* what had a polka is not proposed again: L15 off */
  if :: validRound[p] != NONE -> v = validValue[p]; pol = validRound[p] :: else fi;
#endif
  for (i : 0 .. HONEST - 1) {
    voters = voters + (!done[i] && lockAllows(i, v, pol) && correct(i, v) -> 1 : 0)
  }
  if
  :: voters >= QUORUM -> quorate = true
  :: voters + 1 == QUORUM -> if :: quorate = true :: quorate = false fi
  :: else -> quorate = false
  fi;
  voters = 0;
  for (i : 0 .. HONEST - 1) {
    if
    :: quorate && !done[i] && correct(i, v) ->
       voters++; lockedRound[i] = ROUNDS + p; lockedValue[i] = v;
       validRound[i] = ROUNDS + p; validValue[i] = v
    :: else
    fi
  }
  for (i : 0 .. HONEST - 1) {
    done[i] = done[i] || (quorate && voters >= QUORUM && correct(i, v))
  }
}
#endif

init {
  atomic {
    for (i : 0 .. HONEST - 1) {
      lockedRound[i] = NONE; step[i] = propose;
#ifdef LIVE
      validRound[i] = NONE;
      if :: unwanted[i] = NIL :: unwanted[i] = A fi;     /* UNWANTED: this node's own view */
#endif
#ifdef FIRST_VOTE
      if :: first[i] = NIL :: first[i] = A fi;
#endif
    }
    i = 0
  }
  do
  :: atomic {
       move();
       assert(!(decided(A) && decided(B)));              /* agreement */
       assert(!decided(BAD));                            /* validity */
       i = 0; v = 0; pol = 0
     }
#ifdef LIVE
  :: break
#endif
  od;
#ifdef LIVE
  atomic {
    deliver();
    goodRound(0); goodRound(1); goodRound(2);
    assert(done[0] && done[1] && done[2])                /* nobody is wedged */
  }
#endif
}
