package config

// nearest is the known variable that a misspelt one most likely means, or "" where none is close.
func nearest(name string) string {
	best, bestDistance := "", 4 // more than three slips is another word
	consider := func(known string) {
		if d := distance(name, known); d < bestDistance {
			best, bestDistance = known, d
		}
	}
	for _, s := range settings() {
		consider(s.name)
	}
	for _, known := range append(elsewhere(), ofSecurity()...) {
		consider(known)
	}
	return best
}

// distance is Levenshtein's: how many letters to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
