package segment

import (
	_ "embed" // of the names
	"fmt"
	"strings"
	"time"

	"footfall/pipeline/profile"
)

// zoneNames are the names of the IANA time zone database, links from older names
// included, one a line and sorted: Go has the zones and does not list them.
//
//go:embed zones.txt
var zoneNames string

// IsZone tells whether a text is the name of a time zone.
func IsZone(name string) bool {
	line := name + "\n"
	return strings.Count(line, "\n") == 1 && name != "" && (strings.HasPrefix(zoneNames, line) || strings.Contains(zoneNames, "\n"+line))
}

// zonesByHash finds every zone by the hash of its name, which is all that a cell keeps
// of a text. All are loaded, so that nothing is read when one is needed; that takes some 10 ms.
func zonesByHash() (map[uint64]*zone, error) {
	names := strings.Fields(zoneNames)
	all := make(map[uint64]*zone, len(names))
	for _, name := range names {
		z, err := loadZone(name)
		if err != nil {
			return nil, err
		}
		all[profile.HashText([]byte(name))] = z
	}
	return all, nil
}

// fixedZone is so many whole hours ahead of UTC.
func fixedZone(hours int) *zone {
	name := fmt.Sprintf("UTC%+03d:00", hours)
	return &zone{name, time.FixedZone(name, hours*60*60)}
}
