package instance

import (
	"encoding/json"
	"time"

	"github.com/reeve-run/reeve/internal/proc"
)

// figures are a process's memory and its share of a core since they were last taken.
type figures struct {
	cpu  time.Duration
	when time.Time
}

// pong is what an agent says of itself. Adapters differ in what they send.
type pong struct {
	Protocol int `json:"protocol"`
	Health   struct {
		MemoryMB   *float64 `json:"memory_mb"`
		CPUPercent *float64 `json:"cpu_percent"`
	} `json:"health"`
}

// take measures what the pong left out.
func (f *figures) take(pid int, result []byte, now time.Time) (memoryMB, cpuPercent float64) {
	var p pong
	_ = json.Unmarshal(result, &p) // a pong is a sign of life, whatever stands in it
	s, err := proc.Read(pid)
	if err == nil {
		memoryMB = float64(s.RSS) / (1 << 20)
		if wall := now.Sub(f.when); !f.when.IsZero() && wall > 0 {
			cpuPercent = 100 * float64(s.CPU-f.cpu) / float64(wall)
		}
		f.cpu, f.when = s.CPU, now
	}
	if p.Health.MemoryMB != nil {
		memoryMB = *p.Health.MemoryMB
	}
	if p.Health.CPUPercent != nil {
		cpuPercent = *p.Health.CPUPercent
	}
	return memoryMB, cpuPercent
}
