/* A meeting endpoint in one file: publishes a picture and a tone, receives everybody else's, and says where the meeting
 * stands. Ctrl-C ends it.
 *
 * It needs plain GStreamer, the plugin, and a meeting-agent that is in a meeting: no header and no library of ours. */
#include <glib-unix.h>
#include <gst/gst.h>

static const char PIPELINE[] =
    "meetingkey meetingsink name=out meetingsrc name=in "
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 "
    "  ! vp8enc deadline=1 keyframe-max-dist=30 ! e2eeseal ! out. "
    "audiotestsrc is-live=true ! opusenc ! e2eeseal ! out.";

/* What the callbacks share. */
struct call {
    GMainLoop *loop;
    GstElement *pipeline;
    int status;
};

/* Opens and decodes one track: a window or a file would go in place of the fakesink. */
static void receive(GstElement *source, GstPad *pad, struct call *call)
{
    (void)source;
    GError *error = NULL;
    GstElement *branch =
        gst_parse_bin_from_description("queue name=first ! e2eeopen ! decodebin ! fakesink", FALSE, &error);
    if (branch == NULL) {
        g_printerr("%s\n", error->message);
        g_error_free(error);
        return;
    }
    gst_object_set_name(GST_OBJECT(branch), GST_OBJECT_NAME(pad));
    GstElement *queue = gst_bin_get_by_name(GST_BIN(branch), "first");
    GstPad *first = gst_element_get_static_pad(queue, "sink"), *entry = gst_ghost_pad_new("sink", first);
    gst_element_add_pad(branch, entry);
    gst_bin_add(GST_BIN(call->pipeline), branch);
    gst_element_sync_state_with_parent(branch);
    gst_pad_link(pad, entry);
    gst_object_unref(first);
    gst_object_unref(queue);

    GstCaps *caps = gst_pad_get_current_caps(pad);
    const GstStructure *whose = gst_caps_get_structure(caps, 0);
    g_print("receiving %s of %s\n", gst_structure_get_string(whose, "track"),
            gst_structure_get_string(whose, "participant-name"));
    gst_caps_unref(caps);
}

static void end(GstElement *pipeline, gpointer name)
{
    GstElement *branch = gst_bin_get_by_name(GST_BIN(pipeline), name);
    if (branch != NULL) {
        gst_bin_remove(GST_BIN(pipeline), branch);
        gst_element_set_state(branch, GST_STATE_NULL);
        gst_object_unref(branch);
    }
}

static void go(GstElement *source, GstPad *pad, struct call *call)
{
    (void)source;
    /* Not from here: a streaming thread cannot stop what it runs in. */
    gst_element_call_async(call->pipeline, end, gst_object_get_name(GST_OBJECT(pad)), g_free);
}

/* What a person is told about a message of ours, or NULL. */
static char *words(const GstStructure *said)
{
    /* Other elements tell their state too; the meeting's has its code. */
    if (gst_structure_has_name(said, "e2ee-state") && gst_structure_has_field(said, "security-code")) {
        const char *state = gst_structure_get_string(said, "state");
        if (g_strcmp0(state, "live") != 0)
            return g_strdup_printf("%s: %s", state, gst_structure_get_string(said, "detail"));
        gboolean verified = FALSE;
        guint people = 0;
        guint64 key = 0;
        gst_structure_get(said, "verified", G_TYPE_BOOLEAN, &verified, "participants", G_TYPE_UINT, &people, "epoch",
                          G_TYPE_UINT64, &key, NULL);
        return g_strdup_printf("live: %u people, key %" G_GUINT64_FORMAT ", code %s (%s)", people, key,
                               gst_structure_get_string(said, "security-code"),
                               verified ? "compared" : "not compared yet");
    }
    if (gst_structure_has_name(said, "e2ee-stream"))
        return g_strdup(gst_structure_get_string(said, "detail"));
    if (gst_structure_has_name(said, "e2ee-open-failure"))
        return g_strdup_printf("a frame of %s's %s is refused: %s", gst_structure_get_string(said, "name"),
                               gst_structure_get_string(said, "track"), gst_structure_get_string(said, "reason"));
    return NULL;
}

static gboolean hear(GstBus *bus, GstMessage *message, gpointer data)
{
    (void)bus;
    struct call *call = data;
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ELEMENT) {
        char *said = words(gst_message_get_structure(message));
        if (said != NULL)
            g_print("%s\n", said);
        g_free(said);
    } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS) {
        g_main_loop_quit(call->loop);
    } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
        GError *error = NULL;
        gst_message_parse_error(message, &error, NULL);
        g_printerr("%s\n", error->message);
        g_error_free(error);
        call->status = 1;
        g_main_loop_quit(call->loop);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean interrupt(gpointer pipeline)
{
    gst_element_send_event(pipeline, gst_event_new_eos());
    return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv)
{
    gst_init(&argc, &argv);
    GError *error = NULL;
    struct call call = {.loop = g_main_loop_new(NULL, FALSE), .pipeline = gst_parse_launch(PIPELINE, &error)};
    if (error != NULL) {
        g_printerr("%s\n", error->message);
        return 1;
    }
    GstElement *source = gst_bin_get_by_name(GST_BIN(call.pipeline), "in");
    g_signal_connect(source, "pad-added", G_CALLBACK(receive), &call);
    g_signal_connect(source, "pad-removed", G_CALLBACK(go), &call);
    gst_object_unref(source);
    GstBus *bus = gst_pipeline_get_bus(GST_PIPELINE(call.pipeline));
    gst_bus_add_watch(bus, hear, &call);
    g_unix_signal_add(SIGINT, interrupt, call.pipeline);

    gst_element_set_state(call.pipeline, GST_STATE_PLAYING);
    g_main_loop_run(call.loop);
    gst_element_set_state(call.pipeline, GST_STATE_NULL);
    gst_bus_remove_watch(bus);
    gst_object_unref(bus);
    gst_object_unref(call.pipeline);
    g_main_loop_unref(call.loop);
    return call.status;
}
