"""A hundred answers as data sets, models and people write them, with the number each gives. Many are lines of GSM8K."""

STRINGS: list[tuple[str, float | None]] = [
    # GSM8K's own mark
    ("#### 18", 18), ("#### 70000", 70000), ("#### 2,125", 2125), ("#### 1,450,000", 1450000), ("####5", 5),
    ("#### $5", 5), ("#### -7", -7), ("#### −5", -5), ("#### -$12.50", -12.5), ("#### $-3", -3),
    ("#### 0.2", 0.2), ("#### .5", 0.5), ("#### 25%", 25), ("#### 3/4", 0.75), ("#### 1 1/2", 1.5),
    ("#### 5 eggs", 5), ("#### The answer is 5", 5), ("#### x = 12", 12), ("#### 3 + 4 = 7", 7),
    ("#### 18\nThat took 3 steps.", 18),
    ("#### 5 and then #### 6", 6), ("#### \\boxed{9}", 9), ("#### 24,960 dollars", 24960), ("#### 007", 7), ("#### 5\n####", 5),
    # solutions with calculator annotations
    ("Natalia sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72", 72),
    ("Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\n#### 10", 10),
    ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", 18),
    ("So he made a profit of 200,000-130,000=$<<200000-130000=70000>>70,000\n#### 70000", 70000),
    ("Each day she uses 16 - 7 = <<16-7=9>>9 duck eggs\nA: 18", 18),
    ("The total size is 25+5=<<25+5=30>>30\nThe average is 30/2=<<30/2=15.0>>15.0\nA: 15", 15),
    ("she will need 580/110 = <<580/110=5.2727272727272725>>5.27 bags\nA: 5", 5),
    ("He made $105 / 7 days = $<<105/7=15.0>>15.00 per day.", 15),
    ("it takes 2*1/2=<<2*1/2=1.0>>1 bolt", 1), ("So far they run 200 + 300 = <<200+300=500>>500 feet.", 500),
    # the last number of a text
    ("A: 18", 18), ("A: 18.", 18), ("A: 1,018", 1018), ("A: $18", 18), ("A: -18", -18),
    ("The answer is 1,000,000.", 1000000), ("The answer is: 42", 42), ("Answer: 42!", 42), ("So the answer is 3.5.", 3.5),
    ("half of 7 is 3.5", 3.5), ("Therefore, each chair cost $36/3 = $12.", 12), ("She has 7 apples left.", 7), ("-3", -3),
    ("They owe -$20", -20), ("minus: −20", -20), ("the change is –4", -4), ("Total = 9", 9), ("x=-4", -4), ("(12)", 12),
    ("It is **14**", 14), ("It is `14`", 14), ("14 apples, 2 of them red", 2), ("In 2024 there were 30", 30),
    # sums: the last number stands, and nothing is worked out
    ("$3 + $4 = $7", 7), ("(3+4)*2=14", 14), ("3+4=7. 7*2=14.", 14), ("10-3", 3), ("it is 5-3", 3), ("5 - 3", 3),
    ("16-3-4=9", 9), ("5−3=2", 2), ("(8)-3", 3), ("3-5 = -2", -2), ("18 ÷ 3 = 6", 6), ("6 × $2.50 = $15", 15),
    ("2 x 12 = 24", 24),
    ("9*2", 2), ("25%-5", 5),
    # fractions, percent, separators
    ("3/4", 0.75), ("3 / 4", 0.75), ("She ate 1/3 of it", 1 / 3), ("-1/2", -0.5), ("2 1/4 cups", 2.25), ("1/0", float("nan")),
    ("40/2 = 20", 20), ("50%", 50), ("12.5 %", 12.5), ("an increase of 150%", 150), ("1,234.50", 1234.5), ("10,800", 10800),
    ("choose 1,2 or 3", 3), ("5, 6, 7", 7), ("12,5", 5), ("1234,567", 567),
    # LaTeX
    ("\\boxed{18}", 18), ("The answer is $\\boxed{18}$.", 18), ("\\boxed{\\frac{3}{4}}", 0.75), ("\\boxed{\\$5}", 5),
    ("\\boxed{25\\%}", 25), ("\\boxed{1{,}250}", 1250), ("\\boxed{x = 5} after 3 steps", 5), ("$\\dfrac{1}{2}$", 0.5),
    ("\\boxed{5\\text{ apples}} and 2 pears", 5), ("\\boxed{-8}", -8),
    # no number
    ("no number at all", None), ("", None), ("seven", None), ("####", None),
]  # fmt: skip
