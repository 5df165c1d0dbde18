package rest

import (
	"embed"
	"net/http"

	"github.com/gin-gonic/gin"
)

// page is the one live page: plain files, no build step.
//
//go:embed page/index.html page/page.css page/page.js page/letters.js
var page embed.FS

// pageFiles are the paths of the page and what they are.
func pageFiles() map[string][2]string {
	return map[string][2]string{
		"/":           {"page/index.html", "text/html; charset=utf-8"},
		"/page.css":   {"page/page.css", "text/css; charset=utf-8"},
		"/page.js":    {"page/page.js", "text/javascript; charset=utf-8"},
		"/letters.js": {"page/letters.js", "text/javascript; charset=utf-8"},
	}
}

// dashboard serves the page. It may load nothing from elsewhere and run nothing but its own scripts.
func (s *Server) dashboard(r *gin.Engine) {
	for path, file := range pageFiles() {
		r.GET(path, func(c *gin.Context) {
			body, err := page.ReadFile(file[0])
			if err != nil {
				s.fail(c, err)
				return
			}
			c.Header("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			c.Header("X-Content-Type-Options", "nosniff")
			c.Header("Cache-Control", "no-cache")
			c.Data(http.StatusOK, file[1], body)
		})
	}
}
