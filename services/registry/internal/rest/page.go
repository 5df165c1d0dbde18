package rest

import (
	"encoding/base64"
	"encoding/json"
)

// pageToken writes where a page ended. Callers pass it back as it is; what is in it may change with any version.
func pageToken(at any) string {
	raw, err := json.Marshal(at)
	if err != nil {
		return "" // a place is numbers and names, which always marshal
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// readToken reads a token into what pageToken was given; an empty token leaves it alone.
func readToken(token string, at any) error {
	if token == "" {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(raw, at)
	}
	if err != nil {
		return badRequest("invalid_page_token", "give next_page_token of the page before, with the same filters", "page_token is no token of this list")
	}
	return nil
}
