"""What a malicious coordinator tries, and why it gets nothing.

Each attack is one program (`programs`) of a coordinator that says what it likes, keeps all that it hears, and is helped
by colluding members (`attacker`). It runs against two kinds of silo:

* the smallest silo that masks (`small_silo`), made straight from `shared.secagg`, with one defence taken out: there the
  attack gets what it is after, which shows that it is a real one and that this defence is what stops it;
* the same silo with all defences, and the product: the real driver, machine, consent and path to masked bytes
  (`product_silo`). There it fails, and `Attacker.totals` says of everything that the silos said which sums can be
  computed from it: at most one in a round, over no fewer honest members than the threshold leaves.

Attack (`programs`): which defence is off, what is gained without it; how the product withstands.

* `equivocated_lists`: the consistency round; the sum of two silos (n=10, c=3, t=7). It opens for t signatures on its
  own list only, and the others do not exist: `ConflictError`.
* `two_lists`: one list in an attempt; both kinds of share, so one silo's update. It opened this attempt for other
  survivors: `ConflictError`.
* `two_rosters`: t from the members of the job; two totals over three silos each (n=10, c=0). Fewer than t advertised:
  `bad_roster`.
* `downgraded_collusion`: c from the job; both kinds of share, so one silo's update. `bad_attempt`.
* `chosen_cohort`: the members of the job; the sum of two silos. `bad_attempt`.
* `everybody_else_is_played`, by sybils: the pinned manifest; one silo's update. It declines: `not_in_consortium`.
* `everybody_else_is_played`, with replaced keys: signatures under the manifest's keys; one silo's update. `bad_roster`.
* `past_round`: seeds of one attempt (there is one for the job); the update of round 1, by a drop in round 5. Every
  attempt has other seeds: what is opened in one fits no other.
* `replay`: seeds of one attempt (there is one for the round); one silo's update, after a snapshot. As above.
* `second_attempt`: one opening in a round; one silo's update, by subtraction. The round was opened: `ConflictError`.
* `second_job`: totals are remembered across jobs; one silo's update, by subtraction. `repeated_total`, unless the
  silo's policy names the job.
* `second_job_interleaved`: the same, looked at once more at the opening; one silo's update, when both lists are signed
  before either total is opened. `ConflictError`.
* `late_upload`: the self mask; the update of one that was declared dropped. Only its pairwise masks are ever opened.
* `listed_survivor`: the pairwise masks; every survivor's update. Only its self mask is ever opened.
* `sent_again`: a resend has the same bytes; one silo's update, from a pad that was used twice. `resend_differs`.
* `unsound_key`: keys of low order are refused; whatever was dealt to that member, readable to all. `bad_roster`.
* `bisected_range`: a round is planned once; the size of one silo's largest coordinate. Planned before with other
  content: `ConflictError`.
* `scanned_range`: only the range of a total that the silo was in is believed; the same size, from rounds on invented
  results. Answered with no, whatever the update.

`test_refusals` and `test_attempts` have the single words that a silo refuses. `test_schedules` has whole random
conversations with honest silos of the product, in which three things must hold: both kinds of share for one member
never leave one silo in one attempt, one total at most opens in a round, no mask is put on two contents.

What remains, and is shown too (`test_what_remains_*`):

* *Subtraction over rounds* (`second_round`): a total with a silo and one without it, on models that train alike.
* *Snapshots* (`replay`): of a federation whose machines were all set back two totals over other members can be had, and
  so their difference. What is not had is the single upload.
"""
