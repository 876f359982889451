package worker

import (
	"testing"
	"unsafe"
)

// What a user is said to take is what the types take.
func TestBytesAreThoseOfTheTypes(t *testing.T) {
	for name, c := range map[string][2]int{
		"row": {rowBytes, int(unsafe.Sizeof(row{}))}, "ring": {ringBytes, int(unsafe.Sizeof(ring{}))},
		"member": {memberBytes, int(unsafe.Sizeof(said{}))},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: said are %d bytes, it takes %d", name, c[0], c[1])
		}
	}
	w := newWorld(t, config(t), 0)
	newTraffic(1000, 100).fill(w.worker, &Output{})
	b := w.worker.Bytes()
	if b.Users != 1000 || b.Ids != 1000*len("u-00000000") || b.PerUser != b.Fixed+len("u-00000000") {
		t.Errorf("got %+v", b)
	}
}
