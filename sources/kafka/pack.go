package kafka

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// packer is a kgo.Compressor that packs a batch from one piece of memory to another, into an
// LZ4 frame of the usual form (lz4.go): as Kafka's Java client does, in blocks of 64 KiB and
// without a checksum at the end. The client's own way copies through a stream, and works out
// a checksum of what the batch's CRC-32C covers already.
type packer struct{ compressors sync.Pool }

func newPacker() *packer {
	return &packer{compressors: sync.Pool{New: func() any { return new(lz4.Compressor) }}}
}

const (
	packCode = 4        // of the size of blocks, in the format's terms
	packSize = 64 << 10 // blockMax(packCode)
)

// Compress implements kgo.Compressor.
func (p *packer) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	compressor, _ := p.compressors.Get().(*lz4.Compressor)
	defer p.compressors.Put(compressor)
	dst.Grow(packedMost(len(src)))
	return packFrame(dst.AvailableBuffer(), src, compressor), kgo.CodecLz4
}

// packedMost is how many bytes a frame of n takes at most.
func packedMost(n int) int {
	blocks := (n + packSize - 1) / packSize
	return frameHeader + 4*blocks + n + 4
}

// packFrame appends a frame to dst, which has the room.
func packFrame(dst, src []byte, compressor *lz4.Compressor) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, frameMagic)
	dst = append(dst, frameFlags, packCode<<4, headerSums[0][packCode-4])
	for len(src) > 0 {
		block := src[:min(len(src), packSize)]
		src = src[len(block):]
		body := dst[len(dst)+4 : len(dst)+4+len(block)]
		size, err := compressor.CompressBlock(block, body)
		if err != nil || size == 0 { // it would not become smaller
			size = copy(body, block) | blockStored
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
		dst = dst[:len(dst)+size&^blockStored]
	}
	return binary.LittleEndian.AppendUint32(dst, 0)
}
