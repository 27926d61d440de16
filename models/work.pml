/* Useful work: one committed segment on its way to HARD, block by block (n = 4, f = 1).
 *
 * Validators 0, 1, 2 are honest; the fourth and the worker collude. The adversary chooses whether a
 * chunk is forged, when each honest audit ends (the worker serves whom it likes, as late as it
 * likes, up to AUDIT), who proposes, with at most f = 1 hostile blocks in a row, what a hostile
 * proposer includes and whom it leaves out, and every vote, attestation and claim of its own. The
 * secret tickets choose whose slice holds the forged chunk. Assumed of the network: a claim that is
 * sent in one height is in every honest mempool before the votes of the next.
 *
 * Weathers. By default blocks are quick and audits slow: patience, a wall clock, protects. With
 * -DSLOW blocks take so long that patience has passed at once: the age, in blocks, protects. With
 * -DCENSORS no honest proposer ever gets a turn; with -DSTARVED two honest audits may never end.
 *
 * docs/model.md maps each rule to its lines in the code. A mutant is a -D switch. */

#define HONEST 3
#define QUORUM 3
#define FAULTS 1
#define HORIZON 40               /* blocks */
#define WINDOW 14                /* attest_window */
#define DISPUTE 2                /* blocks from a claim to its ruling */
#define FALSE_CLAIMS 2           /* that the bond of the Byzantine one can bear */

#ifdef SLOW
#define AUDIT 2                  /* height, counted from the commit, by which honest audits end */
#define PATIENCE 0               /* heights in which a node waits for who votes but has not attested */
#else
#define AUDIT 4
#define PATIENCE (AUDIT + 1)
#endif

#ifdef NO_AGE
#define DEPTH 0
#else
#define DEPTH (FAULTS + 2)
#endif

#if defined(ALL_ATTEST)          /* everybody has to attest, not a quorum */
#define ENOUGH 4
#elif defined(FEW_ATTEST)        /* more than a third suffices */
#define ENOUGH 2
#else
#define ENOUGH QUORUM
#endif

mtype = { committed, disputed, hard, fallen };
mtype segment = committed;
bool forged, draws[HONEST];      /* a chunk is wrong; whose slice holds it */
bool audited[HONEST];            /* this audit has ended: an attestation, or a claim */
bool attests[HONEST], liarAttests;                      /* stands on chain */
bool knows[HONEST];              /* a true claim is in this node's mempool */
bool onTrue, upheld, hostile;    /* the claim on chain is true; how it ended; who proposes */
byte height, since, opened, falseClaims, i, proposer, leftOut;

#define finds(i)    (forged && draws[i])
#define attested(i) (audited[i] && !finds(i))
#define anyFinds    (finds(0) || finds(1) || finds(2))
#define one(b)      ((b) -> 1 : 0)
#define checked     (one(attested(0)) + one(attested(1)) + one(attested(2)))
#ifdef STARVED
#define anyFound    (knows[0] && knows[1] && knows[2])  /* and said so a height ago */
#define mayStarve(i) (i > 0)
#else
#define anyFound    anyFinds     /* every honest audit ends, so who draws it finds it */
#define mayStarve(i) false
#endif

#define atWork (segment == committed || segment == disputed)

/* A block with FINALISE is INVALID, on every node, unless this holds (why_not_final). */
#define onChain (one(attests[0]) + one(attests[1]) + one(attests[2]) + one(liarAttests))
#define mayBeHard (segment == committed && height >= since + DEPTH && onChain >= ENOUGH)

/* It is UNWANTED to node i unless this holds: the veto (Chain._is_wanted). */
#if defined(NO_VETO) || defined(NO_CLAIM_IN_VETO)
#define accused(i) false
#elif defined(JUNK_IN_VETO)      /* a claim that no block could take counts as well */
#define accused(i) true
#else
#define accused(i) knows[i]
#endif
#if defined(NO_VETO) || defined(NO_OWN_IN_VETO)
#define own(i) true
#else
#define own(i) attested(i)
#endif
#if defined(NO_VETO) || defined(NO_PATIENCE)
#define ripe true
#else
#define ripe (onChain == 4 || height >= since + PATIENCE)
#endif
#define wants(i) (own(i) && !accused(i) && ripe)
#define passes (1 + one(wants(0)) + one(wants(1)) + one(wants(2)) >= QUORUM)

/* Claims sent in the last height are everywhere; audits end, and who finds the fraud claims. */
inline audit() {
  if
  :: knows[0] || knows[1] || knows[2] -> knows[0] = true; knows[1] = true; knows[2] = true
  :: else
  fi;
  for (i : 0 .. HONEST - 1) {
    if
    :: !audited[i] -> audited[i] = true; knows[i] = knows[i] || finds(i)
    :: !audited[i] && (height < AUDIT || mayStarve(i)) -> skip
    :: audited[i]
    fi
  }
}

/* The parent's precommits. A hostile proposer may leave out one honest validator's. */
inline lastCommit() {
  leftOut = HONEST;
  if
  :: hostile -> if :: leftOut = 0 :: leftOut = 1 :: leftOut = 2 :: skip fi
  :: else
  fi;
  for (i : 0 .. HONEST - 1) { attests[i] = attests[i] || (attested(i) && i != leftOut) }
  if :: liarAttests = true :: skip fi
}

/* The claims and the FINALISE of this block. Claims go before; a false one may be the earlier. */
inline build() {
  if
  :: segment == committed && knows[proposer] && !hostile ->
     segment = disputed; opened = height; onTrue = true
  :: segment == committed && falseClaims < FALSE_CLAIMS ->
     segment = disputed; opened = height; onTrue = false; falseClaims++
  :: hostile || segment != committed || !knows[proposer] -> skip
  fi;
  if
  :: mayBeHard && passes && (hostile || wants(proposer)) -> segment = hard
  :: mayBeHard && hostile -> skip
  :: !mayBeHard || !passes || !(hostile || wants(proposer)) -> skip
  fi
}

/* All honest validators have re-run the chunk; their ballots are there in the end. */
inline settle() {
  if
  :: segment == disputed && height > opened ->
#ifdef RULING_BY_ONE             /* one ballot settles a claim: the Byzantine one's */
     if :: onTrue = true :: onTrue = false fi;
#endif
     if
     :: onTrue -> segment = fallen; upheld = true
     :: else -> segment = committed; since = height
#ifdef FREE_CLAIMS               /* a false accuser loses nothing, and may say it again */
        ; falseClaims = 0
#endif
     fi
  :: segment == disputed && height < opened + DISPUTE -> skip
  :: segment == committed && height > WINDOW && onChain < QUORUM -> segment = fallen
  :: segment == committed && !(height > WINDOW && onChain < QUORUM) -> skip
  :: !atWork -> skip
  fi
}

inline choose() {                /* (h + r) mod n: the honest ones come in between */
#ifdef CENSORS                   /* no honest proposer ever gets a turn */
  hostile = true
#else
  if
  :: !hostile -> hostile = true
  :: hostile = false; if :: proposer = 0 :: proposer = 1 :: proposer = 2 fi
  fi
#endif
}

init {
  atomic {
    if :: forged = true :: skip fi;
    for (i : 0 .. HONEST - 1) { if :: draws[i] = true :: skip fi }
  }
  do
  :: atomic { atWork && height < HORIZON ->
       height++;
       choose(); audit(); lastCommit(); build(); settle();
       assert(!(segment == hard && anyFound));           /* no fraud that was found is paid for */
       assert(segment != hard || checked >= FAULTS + 1); /* nothing that honest ones did not check */
       assert(!(upheld && !forged));                     /* no honest worker is slashed */
       i = 0; leftOut = 0
     }
  :: atomic { !(atWork && height < HORIZON) -> break }
  od;
#if !defined(CENSORS) && !defined(STARVED)
  assert(forged || segment == hard);                     /* honest work is paid for: no wedge */
  assert(!anyFinds || upheld)                            /* a forger that was drawn is slashed */
#endif
}
