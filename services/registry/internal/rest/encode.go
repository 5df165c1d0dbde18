package rest

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// textOrBase64 gives bytes as text where they are UTF-8, else as base64, and says which; null stays null.
func textOrBase64[E ~string](value []byte) (*string, E) {
	if value == nil {
		return nil, ""
	}
	if utf8.Valid(value) {
		text := string(value)
		return &text, "utf-8"
	}
	text := base64.StdEncoding.EncodeToString(value)
	return &text, "base64"
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }
