"""A network camera that sees green and hears 523 Hz: prints its address once it listens on this machine."""
import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
camera = GstRtspServer.RTSPMediaFactory(shared=True)
camera.set_launch("""(
    videotestsrc is-live=true pattern=green ! video/x-raw,width=160,height=90,framerate=15/1
      ! x264enc tune=zerolatency key-int-max=15 ! rtph264pay name=pay0 pt=96
    audiotestsrc is-live=true freq=523 volume=0.3 ! opusenc ! rtpopuspay name=pay1 pt=97 )""")
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
server.get_mount_points().add_factory("/door", camera)
server.attach(None)
print(f"rtsp://127.0.0.1:{server.get_bound_port()}/door", flush=True)
GLib.MainLoop().run()
