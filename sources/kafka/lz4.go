package kafka

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch of records packed by LZ4 is one frame (LZ4 Frame Format Description 1.6.4). What
// Kafka's clients write is of this form, little endian:
//
//	offset 0, size 4: 0x184D2204
//	offset 4, size 1: flags: 0x60, blocks are independent, or 0x64, and a checksum ends the frame
//	offset 5, size 1: 0x40, 0x50, 0x60, 0x70: blocks expand to 64 KiB, 256 KiB, 1 MiB, 4 MiB at most
//	offset 6, size 1: a checksum of these two: headerSums
//	then blocks, each after its size in 4 bytes, of which the highest bit says that it is not packed
//	then 4 bytes of 0, and 4 of a checksum if the flags say so
//
// It is read here from one piece of memory to another. The client's own way copies through a
// stream, and works out a checksum of what the batch's CRC-32C covers already; so Kafka's
// Java client does not look at the one at the end either.
const (
	frameMagic    = 0x184D2204
	frameFlags    = 0x60
	frameChecksum = 0x04
	frameHeader   = 7
	blockStored   = 1 << 31
)

// headerSums are the checksums of a frame's header: by whether there is one at the end, and
// by the size of blocks, 4 to 7 in the format's terms.
//
//nolint:gochecknoglobals // they never change
var headerSums = [2][4]byte{{0x82, 0xfb, 0x51, 0x73}, {0xa7, 0x08, 0x85, 0xb9}}

// blockMax is what a block expands to at most.
func blockMax(code int) int { return 1 << (8 + 2*code) }

// unpacker is a kgo.Decompressor. Frames of the usual form are unpacked here, all else by
// the client's own, which also finds the words for what is wrong.
type unpacker struct {
	others kgo.Decompressor // bounded by max
	max    int              // what a batch may expand to

	// ratio is to what one byte of the batches before has expanded, about, in 1/256.
	ratio atomic.Int64
}

// Decompress implements kgo.Decompressor.
func (u *unpacker) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecLz4 {
		guess := int64(len(src)) * u.ratio.Load() >> 8
		out, ok := unpackFrame(takeBytes(int(min(guess, int64(u.max)))), src, u.max)
		if ok {
			u.learn(len(src), len(out))
			return out, nil
		}
		giveBytes(out)
	}
	return u.others.Decompress(src, codec)
}

// newUnpacker makes one of the options that the client it is for has.
func newUnpacker(opts []kgo.Opt) (*unpacker, error) {
	// A client makes its decompressor in the way that its limit is kept. There is no other
	// way to one, and this client connects to nobody.
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	u := &unpacker{max: batchMaxDefault}
	u.others, _ = cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if most, ok := cl.OptValue(kgo.MaxDecompressBatchBytes).(int); ok {
		u.max = most
	}
	u.ratio.Store(4 << 8)
	return u, nil
}

// learn follows the ratio: upwards soon, so that what is taken mostly suffices, and slowly
// downwards. A batch of one event again and again expands two hundred times, and the next
// ones do not: by its ratio they would take gigabytes.
func (u *unpacker) learn(packed, unpacked int) {
	now := int64(unpacked)<<8/int64(packed) + 8
	if ratio := u.ratio.Load(); now > ratio {
		u.ratio.Store(min(now, 2*ratio))
	} else {
		u.ratio.Store(ratio - (ratio-now)>>5)
	}
}

// unpackFrame appends what a frame expands to, at most so many bytes. It takes only frames
// of the usual form, and gives up where anything is not as it should be. What it returns
// stands for dst in either case.
func unpackFrame(dst, src []byte, most int) ([]byte, bool) {
	if len(src) < frameHeader || binary.LittleEndian.Uint32(src) != frameMagic || src[4]&^frameChecksum != frameFlags {
		return dst, false
	}
	sum, code := int(src[4]&frameChecksum)/frameChecksum, int(src[5]>>4)
	if src[5]&0x0f != 0 || code < 4 || code > 7 || src[6] != headerSums[sum][code-4] {
		return dst, false
	}
	for src = src[frameHeader:]; len(src) >= 4; {
		size := int(binary.LittleEndian.Uint32(src))
		src = src[4:]
		if size == 0 {
			return dst, len(src) == 4*sum
		}
		packed := size&blockStored == 0
		if size &^= blockStored; size > len(src) || size > blockMax(code) {
			return dst, false
		}
		var ok bool
		if !packed {
			dst, ok = append(dst, src[:size]...), true
		} else if dst, ok = unpackBlock(dst, src[:size], blockMax(code)); !ok {
			return dst, false
		}
		if len(dst) > most {
			return dst, false
		}
		src = src[size:]
	}
	return dst, false
}

// unpackBlock appends what a block expands to, at most so many bytes, likewise.
func unpackBlock(dst, src []byte, most int) ([]byte, bool) {
	room, n, err := dst[len(dst):min(cap(dst), len(dst)+most)], 0, errNoRoom
	if len(room) > 0 { // the library looks at the first byte
		n, err = lz4.UncompressBlock(src, room)
	}
	if err != nil && len(room) < most { // perhaps there is too little of it
		grown := takeBytes(len(dst) + most)
		grown = append(grown, dst...)
		giveBytes(dst)
		dst = grown
		n, err = lz4.UncompressBlock(src, dst[len(dst):len(dst)+most])
	}
	if err != nil {
		return dst, false
	}
	return dst[:len(dst)+n], true
}

var errNoRoom = errors.New("no room")

// Memory that batches are unpacked into is of sizes that lie a fourth of a power of two
// apart: the client clears what is given back, all there is of it.
const (
	bytesLeast   = 4 << 10
	bytesClasses = 128
)

//nolint:gochecknoglobals // memory that anyone may use
var byteMemory [bytesClasses]sync.Pool

// classOf gives the size that n bytes are taken as, and its number.
func classOf(n int) (class, size int) {
	n = max(n, bytesLeast)
	shift := bits.Len(uint(n-1)) - 3
	steps := (n-1)>>shift + 1 // 5 to 8
	return shift*4 + steps - 4, steps << shift
}

// takeBytes gives empty memory for n bytes or more.
func takeBytes(n int) []byte {
	class, size := classOf(n)
	if got, ok := byteMemory[class].Get().(*[]byte); ok {
		return (*got)[:0]
	}
	return make([]byte, 0, size)
}

// giveBytes gives memory back, if it is of one of the sizes.
func giveBytes(b []byte) {
	if class, size := classOf(cap(b)); size == cap(b) {
		byteMemory[class].Put(&b)
	}
}
